/**
 * Signs of life of a long call whose service cannot report progress: clients give a request up after a minute or so
 * without any, unless something comes (MCP, basic/lifecycle, "Timeouts": progress may reset the client's clock).
 */
import type { Progress, Tool } from "../tools/tool.ts";

/** Milliseconds: several within the shortest timeout that clients have, and rare enough to cost nothing. */
const heartbeatMs = 5_000;

/** Whether a tool tells of its progress and logs by itself: functions of this process can, services cannot. */
export const mayReport = ({ execution }: Tool): boolean =>
  execution.kind === "local" || execution.kind === "function";

/** Reports the seconds since the begin of the call, again and again. @returns ends it */
export function startHeartbeat(tool: Tool, report: (progress: Progress) => void): () => void {
  let done = 0;
  const timer = setInterval(() => {
    done += heartbeatMs / 1000;
    const total = tool.timeoutSeconds;
    const message = `waiting for ${tool.name} (${done} s)`;
    report({ done, message, ...(total !== undefined && total >= done && { total }) });
  }, heartbeatMs);
  return () => clearInterval(timer);
}
