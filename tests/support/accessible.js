// The rules of accessible.py; an expression whose value is the list of complaints.
(() => {
  const found = [];
  const say = (rule, e) => found.push(`${rule}: ${e.outerHTML.slice(0, 120)}`);
  const seen = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const named = (e) => {
    const by = (e.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
    const texts = [e.getAttribute("aria-label"), e.innerText, e.title, e.alt,
      ...by.map((id) => document.getElementById(id)?.innerText),
      ...[...(e.labels ?? [])].map((label) => label.innerText)];
    return texts.some((text) => text?.trim());
  };

  if (!document.documentElement.lang) say("3.1.1 no language", document.documentElement);
  if (!document.title.trim()) say("2.4.2 no title", document.head);
  if (all("main").length !== 1) say("1.3.1 not one main", document.body);
  if (all("h1").length < 1) say("1.3.1 no h1", document.body);

  let before = 0;
  for (const heading of all("h1, h2, h3, h4")) {
    const level = Number(heading.tagName[1]);
    if (before && level > before + 1 && !heading.closest(".prose")) say("1.3.1 heading skips a level", heading);
    before = level;
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1) say("4.1.2 id twice", document.getElementById(id));
  for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
    for (const e of document.querySelectorAll(`[${name}]`)) {
      for (const id of e.getAttribute(name).split(" ")) if (!document.getElementById(id)) say(`4.1.2 ${name} leads nowhere`, e);
    }
  }
  for (const e of all("a[href], button, input:not([type=hidden]), select, textarea, summary, [role=img], dialog")) if (!named(e)) say("4.1.2 no name", e);
  for (const e of all("img")) if (!e.hasAttribute("alt")) say("1.1.1 no alt", e);
  for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) say("2.4.3 tab order by number", e);
  for (const e of all("th")) if (!e.scope) say("1.3.1 th without scope", e);

  // contrast (1.4.3): text on what really lies under it
  const colour = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, low) => ({ r: top.r * top.a + low.r * (1 - top.a), g: top.g * top.a + low.g * (1 - top.a), b: top.b * top.a + low.b * (1 - top.a), a: 1 });
  const ground = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((low, top) => over(top, low), { r: 0, g: 0, b: 0, a: 1 });
  };
  const light = ({ r, g, b }) => {
    const part = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.nodeValue.trim() || !seen(e) || e.closest(".unseen, .skip, svg, noscript, option, [disabled]")) continue;
    const style = getComputedStyle(e), low = ground(e), top = over(colour(style.color), low);
    const [bright, dim] = [light(top), light(low)].sort((a, b) => b - a);
    const ratio = (bright + 0.05) / (dim + 0.05), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    if (ratio < least) say(`1.4.3 contrast ${ratio.toFixed(2)}`, e);
  }

  // targets (2.5.8): 24 by 24, links in running text aside
  for (const e of all("a[href], button, select, textarea, summary, input:not([type=hidden])")) {
    const box = e.getBoundingClientRect();
    const running = e.tagName === "A" && getComputedStyle(e).display === "inline";
    const labelled = [...(e.labels ?? [])].some((label) => label.getBoundingClientRect().height >= 24);
    if (!running && !labelled && (box.width < 24 || box.height < 24) && !e.classList.contains("skip")) say("2.5.8 target too small", e);
  }

  // reflow (1.4.10)
  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth + 1) {
    const wide = all("main *").filter((e) => e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest(".scroll"));
    say(`1.4.10 scrolls sideways: ${root.scrollWidth} > ${root.clientWidth}`, wide[0] ?? document.body);
  }
  return found;
})()
