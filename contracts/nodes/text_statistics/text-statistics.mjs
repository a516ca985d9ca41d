/** Words an adult reads in a minute, for prose in silence. */
const wordsPerMinute = 238;

/** @param {{ text: string, language?: string }} input */
export function textStatistics({ text, language = "en" }) {
  const count = (granularity, keep = () => true) =>
    [...new Intl.Segmenter(language, { granularity }).segment(text)].filter(keep).length;
  const words = count("word", (segment) => segment.isWordLike);
  return {
    characters: count("grapheme"),
    words,
    sentences: count("sentence", ({ segment }) => segment.trim() !== ""),
    paragraphs: text.split(/\n\s*\n/).filter((paragraph) => paragraph.trim() !== "").length,
    reading_minutes: Math.round((words / wordsPerMinute) * 10) / 10,
  };
}
