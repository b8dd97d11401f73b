// What every page does: help, local times, announcements, keys, the security token for htmx.
const body = document.body;
export const announce = (text) => { document.getElementById("announce").textContent = text; };

const localTimes = (root) => {
  const format = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
    time.dataset.local = "";
  }
};

const help = document.getElementById("help");
const opener = document.querySelector("[data-help]");
opener.hidden = false;
opener.addEventListener("click", () => help.showModal());

// One table of keys per page: `keys.set("w", {do: () => ...})` in the page's own module.
export const keys = new Map([
  ["?", () => help.showModal()],
  ["g", () => { location.href = "/"; }],
]);
const typing = (target) => target.closest("textarea, select, input:not([type=checkbox], [type=radio], [type=range]), [contenteditable]");
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || typing(event.target)) return;
  const action = keys.get(event.key);
  if (action) { event.preventDefault(); action(event); }
});

document.addEventListener("htmx:config:request", (event) => {
  event.detail.ctx.request.headers["X-CSRF-Token"] = body.dataset.csrf;
});
document.addEventListener("htmx:after:swap", () => {
  localTimes(document);
  const said = document.querySelector("main [data-announce]");
  if (said && said.dataset.announce !== body.dataset.said) {
    body.dataset.said = said.dataset.announce;
    announce(said.dataset.announce);
  }
});
document.addEventListener("htmx:after:settle", () => document.querySelector("main [data-focus]:not([data-focused])")?.focus());

localTimes(document);
const first = document.querySelector("main [data-focus]");
if (first) { first.focus(); first.dataset.focused = ""; }

// the box says that something changed: fragments with hx-trigger="changed from:body" fetch themselves
let told;
export const changed = () => {
  clearTimeout(told);
  told = setTimeout(() => body.dispatchEvent(new CustomEvent("changed")), 250);
};
