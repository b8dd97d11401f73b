// Keys of the worklist: j and k walk over the studies, / goes to the search field.
import { announce, keys } from "./page.js";

const links = () => [...document.querySelectorAll("#work .patient")];
const walk = (step) => {
  const all = links();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement);
  const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step));
  all[next].focus();
  all[next].closest("tr").scrollIntoView({ block: "nearest" });
};
keys.set("j", () => walk(1));
keys.set("k", () => walk(-1));
keys.set("/", () => document.getElementById("q").focus());

// say that something changed only when the order or a state did, not at every look
const summary = () => document.getElementById("work").innerText.replace(/\d+/g, "");
let before = summary();
document.addEventListener("htmx:after:swap", () => {
  const now = summary();
  if (now !== before && document.activeElement?.id !== "q") announce(document.getElementById("work").dataset.changed);
  before = now;
});
