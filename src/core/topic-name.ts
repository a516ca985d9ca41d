/** The names that Kafka gives its topics. Owns: their pattern, as JSON Schemas show it. */
export const topicNamePattern = /^(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}$/;

/** True for 1..249 of `[a-zA-Z0-9._-]`, neither "." nor "..". */
export const isTopicName = (name: string): boolean => topicNamePattern.test(name);
