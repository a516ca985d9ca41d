/** Tools that answer with every kind of content block, under the names and with the texts that the suite asks for. */
import { content } from "onex-runtime";

const text = (value) => ({ type: "text", text: value });

/** One red pixel. */
const picture = {
  type: "image",
  mimeType: "image/png",
  data: "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==",
};

/** No samples, 8 kHz, 8 bit, mono. */
const sound = {
  type: "audio",
  mimeType: "audio/wav",
  data: "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=",
};

export const simpleText = () => content([text("This is a simple text response for testing.")]);

export const image = () => content([picture]);

export const audio = () => content([sound]);

export const embeddedResource = () =>
  content([
    {
      type: "resource",
      resource: {
        uri: "test://embedded-resource",
        mimeType: "text/plain",
        text: "This is an embedded resource content.",
      },
    },
  ]);

export const multipleTypes = () =>
  content([
    text("Multiple content types test:"),
    picture,
    {
      type: "resource",
      resource: {
        uri: "test://mixed-content-resource",
        mimeType: "application/json",
        text: JSON.stringify({ test: "data", value: 123 }),
      },
    },
  ]);

export function failing() {
  throw new Error("This tool intentionally returns an error for testing");
}

/** What came in, as text. */
export const echo = (input) => content([text(JSON.stringify(input))]);
