// Keys, and pages that stay up to date while one reads them. Every page works without this file.
"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const rows = () => [...document.querySelectorAll("a.go")];

  const step = (by) => {
    const all = rows();
    if (!all.length) return follow(by > 0 ? "next" : "prev");
    const at = all.indexOf(document.activeElement);
    all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))].focus();
  };
  const follow = (relation) => find(`a[rel="${relation}"]`)?.click();
  const keys = {
    j: () => step(1), k: () => step(-1), n: () => follow("next"), p: () => follow("prev"), u: () => follow("up"),
    "/": () => find("#search")?.focus(),
    "?": () => { const list = find("#keys"); list.open = !list.open; if (list.open) list.scrollIntoView(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
    } else if (Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  // What changed is replaced in place: scroll positions, open details and the focus stay as they are.
  const refresh = async () => {
    const old = find("#live");
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#live");
    if (!fresh || fresh.innerHTML === old.innerHTML) return;
    for (const kept of old.querySelectorAll("details[open]"))
      if (kept.id) fresh.querySelector(`#${CSS.escape(kept.id)}`)?.setAttribute("open", "");
    const scrolled = [...old.querySelectorAll(".scroll")].map((region) => region.scrollLeft);
    const focused = old.contains(document.activeElement) ? [...old.querySelectorAll("a, [tabindex]")].indexOf(document.activeElement) : -1;
    const [left, top] = [scrollX, scrollY];
    old.replaceWith(document.adoptNode(fresh));
    fresh.querySelectorAll(".scroll").forEach((region, i) => { region.scrollLeft = scrolled[i] ?? 0; });
    if (focused >= 0) fresh.querySelectorAll("a, [tabindex]")[focused]?.focus({ preventScroll: true });
    scrollTo(left, top);
  };
  const watch = () => {
    const every = Number(find("#live")?.dataset.every);
    if (!every) return;
    setTimeout(async () => {
      try {
        if (!document.hidden) await refresh();
        find("#state").textContent = "";
      } catch {
        find("#state").textContent = "The server does not answer: this page is as it was last.";
      }
      watch();
    }, 1000 * every);
  };
  watch();
})();
