/** Words an adult reads in a minute, for prose in silence. */
const wordsPerMinute = 238;

/** @param {{ text: string, language?: string }} input */
export function textStatistics({ text, language = "en" }) {
  const locale = localeOf(language);
  const count = (granularity, counts = () => true) => {
    let total = 0;
    for (const segment of new Intl.Segmenter(locale, { granularity }).segment(text))
      if (counts(segment)) total += 1;
    return total;
  };
  const words = count("word", ({ isWordLike }) => isWordLike);
  return {
    characters: count("grapheme"),
    words,
    sentences: count("sentence", ({ segment }) => segment.trim() !== ""),
    paragraphs: text.split(/\n\s*\n/).filter((paragraph) => paragraph.trim() !== "").length,
    reading_minutes: Math.round((words / wordsPerMinute) * 10) / 10,
  };
}

/** What a tool throws is what the caller reads: say what was wrong and what would do. */
function localeOf(language) {
  try {
    return new Intl.Locale(language);
  } catch {
    throw new RangeError(`"${language}" is not a language tag such as en or pt-BR.`);
  }
}
