/** What the plain routes need of this folder, as one value: `admin/` may not import it and is handed it. */
import type { Authenticator } from "./auth.ts";
import { readBody, type Guard } from "./guard.ts";
import { problem, problemResponse } from "./problem.ts";

/** `identify`, `authorize`, `guard`, `problem`, and `readBody` within the guard's limit. */
export function httpParts(guard: Guard, authenticator: Authenticator) {
  return {
    guard: guard.middleware,
    identify: authenticator.identify,
    authorize: authenticator.authorize,
    problem,
    /** The whole body, else the answer: 413 or 400. */
    async readBody(request: Request): Promise<Uint8Array | Response> {
      const body = await readBody(request, guard.maxBodyBytes);
      return body.ok ? body.bytes : problemResponse(body.problem);
    },
  };
}
