// The box tells what changed (ids and states only); fragments then fetch themselves.
import { changed } from "./page.js";

if (window.EventSource) {
  const events = new EventSource("/api/v1/events");
  for (const kind of ["message", "job", "result", "review", "delivery", "night"]) events.addEventListener(kind, changed);
  addEventListener("pagehide", () => events.close());
}
