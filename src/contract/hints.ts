/** Hints of a tool that every kind of contract writes in the same words: annotations, icons, tags. Pure. */
import { valueText } from "./problems.ts";
import { allowedIcon } from "./tool-name.ts";

/** As clients are told them; absent: the protocol's defaults. */
export interface Annotations {
  readonly readOnly?: boolean;
  readonly destructive?: boolean;
  readonly idempotent?: boolean;
  readonly openWorld?: boolean;
}

export interface Icon {
  readonly src: string;
  readonly mimeType?: string;
  readonly sizes?: readonly string[];
}

interface WrittenAnnotations {
  readonly read_only?: boolean | undefined;
  readonly destructive?: boolean | undefined;
  readonly idempotent?: boolean | undefined;
  readonly open_world?: boolean | undefined;
}

interface WrittenIcon {
  readonly src: string;
  readonly mime_type?: string | undefined;
  readonly sizes?: readonly string[] | undefined;
}

export function annotationsOf(written: WrittenAnnotations | undefined): Annotations {
  const { read_only, destructive, idempotent, open_world } = written ?? {};
  return {
    ...(read_only !== undefined && { readOnly: read_only }),
    ...(destructive !== undefined && { destructive }),
    ...(idempotent !== undefined && { idempotent }),
    ...(open_world !== undefined && { openWorld: open_world }),
  };
}

/** @param notes is told of each that is left out, since clients would fetch it from anywhere */
export function iconsOf(written: readonly WrittenIcon[] | undefined, notes: string[]): Icon[] {
  return (written ?? []).flatMap(({ src, mime_type: mimeType, sizes }) => {
    if (!allowedIcon(src)) {
      notes.push(`mcp.icons: ${valueText(src)} is neither https: nor data:image/, left out`);
      return [];
    }
    return [{ src, ...(mimeType !== undefined && { mimeType }), ...(sizes !== undefined && { sizes }) }];
  });
}

/** One tag may be written without a list. */
export const tagsOf = (written: string | readonly string[] | undefined): readonly string[] =>
  typeof written === "string" ? [written] : (written ?? []);
