"use strict";
(() => {
  const data = JSON.parse(document.getElementById("questions-data").textContent);
  const {methods, shots, words} = data;
  const root = document.getElementById("questions"), fold = root.closest("details");
  const items = [...root.querySelectorAll("details.q")];
  const find = id => document.getElementById(id);
  const PAGE = 25;
  let shownItems = PAGE, matching = items, writing = false;

  const given = (place, method, at) => data.questions[place][2].find(g => g[0] === method && (g[1] === at || g[1] === 0));
  const make = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const right = g => g[2] >= data.right;
  const controls = {a: find("q-a"), ar: find("q-ar"), b: find("q-b"), br: find("q-br"), s: find("q-s"), find: find("q-find")};
  for (const name of ["a", "b"]) methods.forEach((label, i) => controls[name].add(new Option(label, i)));
  shots.forEach((n, i) => controls.s.add(new Option(words.at[i], n)));
  const start = {a: String(data.first), ar: "", b: String(data.second), br: "", s: String(shots.at(-1)), find: ""};

  // The state is in the address: every view is a link.
  const state = () => Object.fromEntries(Object.entries(controls).map(([key, one]) => [key, one.value]));
  const current = () => items.find(item => item.open) || null;
  const address = () => {
    const now = state(), parts = new URLSearchParams(), open = current();
    if (open) parts.set("q", data.questions[open.dataset.place][0]);
    for (const [key, value] of Object.entries(now))
      if (value !== start[key]) parts.set(key, key === "a" || key === "b" ? methods[value] : value);
    return "#" + (parts.size ? parts : "q=");
  };
  const remember = () => {
    const next = address();
    if (writing || location.hash === next || (next === "#q=" && !location.hash.includes("="))) return;
    try { history.replaceState(null, "", next); } catch { /* too many in a short time: the next one is remembered */ }
  };
  const restore = () => {
    const text = location.hash.slice(1);
    if (/^q-\d+$/.test(text) && items[text.slice(2)]) return open(items[text.slice(2)]);
    if (!text.includes("=")) return text && show(find(text));
    writing = true;
    const parts = new URLSearchParams(text);
    for (const [key, one] of Object.entries(controls)) {
      const value = parts.get(key);
      one.value = value === null ? start[key] : key === "a" || key === "b" ? Math.max(0, methods.indexOf(value)) : value;
      if (one.value === "" && start[key] !== "") one.value = start[key];
    }
    filter();
    const place = data.questions.findIndex(q => q[0] === parts.get("q"));
    fold.open = true;
    if (place >= 0) open(items[place]);
    else root.scrollIntoView();
    writing = false;
    remember();
  };
  const show = element => {
    for (let e = element; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    if (element) element.scrollIntoView();
  };

  const filter = () => {
    const now = state(), at = Number(now.s), words_ = now.find.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (place, method, wanted) => {
      const g = given(place, Number(method), at);
      return !wanted || (g && right(g) === (wanted === "right"));
    };
    matching = items.filter(item => {
      const place = item.dataset.place, [id, caption] = data.questions[place];
      const text = `${item.querySelector(".qt").textContent}\n${id}\n${caption}`.toLowerCase();
      return fits(place, now.a, now.ar) && fits(place, now.b, now.br) && words_.every(word => text.includes(word));
    });
    draw();
  };
  const draw = () => {
    // What is open stays, so that one can look at it at another number of shots.
    const kept = new Set([...matching.slice(0, shownItems), current()]), now = state(), pair = [...new Set([now.a, now.b])].map(Number);
    for (const item of items) {
      item.hidden = !kept.has(item);
      if (item.hidden) continue;
      const chips = pair.map(m => {
        const g = given(item.dataset.place, m, Number(now.s));
        return g && make("span", `${methods[m]} ${right(g) ? "✓" : "✗"}`, right(g) ? "r" : "w");
      }).filter(Boolean);
      item.querySelector(".chips").replaceChildren(...chips.flatMap(chip => [chip, " "]));
      if (item.open) fill(item);
    }
    find("q-count").textContent = words.count.replace("{some}", matching.length).replace("{all}", items.length);
    find("q-more").hidden = matching.length <= shownItems;
    remember();
  };

  // One question: what each method was shown and answered, at one number of shots.
  const example = place => {
    const [id, text, answer, caption, picture] = data.demonstrations[place], figure = make("figure");
    if (picture) {
      const image = make("img");
      image.src = picture;
      image.alt = caption || id;
      figure.append(image);
    }
    const below = make("figcaption", `${text || id} `);
    below.append(make("b", answer));
    figure.append(below);
    figure.title = id;
    return figure;
  };
  const fill = item => {
    const at = Number(controls.s.value), pair = [...new Set([Number(controls.a.value), Number(controls.b.value)])];
    const cards = order => order.map(m => [m, given(item.dataset.place, m, at)]).filter(([, g]) => g).map(([m, g]) => {
      const card = make("section", undefined, "card"), head = make("h3", methods[m]), line = make("p");
      line.append(make("span", right(g) ? "✓ " : "✗ ", right(g) ? "r" : "w"), make("b", g[3] || words.nothing),
        ` ${words.score} ${g[2].toFixed(2)}`);
      card.append(head, line);
      if (g[5] !== undefined) card.append(make("p", `${words.raw} ${JSON.stringify(g[5])}`, "remark"));
      const examples = make("div", undefined, "examples");
      examples.append(...(g[4].length ? g[4].map(example) : [make("p", g[1] ? words.unknown : words.none, "remark")]));
      card.append(examples);
      return card;
    });
    // The two that are compared stand above the overview of all.
    item.querySelector(".pair").replaceChildren(...cards(pair));
    item.querySelector(".rest").replaceChildren(...cards([...methods.keys()].filter(m => !pair.includes(m))));
  };
  const open = item => {
    fold.open = true;
    shownItems = Math.max(shownItems, matching.indexOf(item) + 1);
    for (const other of items) if (other !== item) other.open = false;
    item.open = true;
    draw();
    item.scrollIntoView({block: "start"});
    item.firstElementChild.focus({preventScroll: true});
  };
  const step = by => {
    const from = current() ? items.indexOf(current()) : -1;
    const next = by > 0 ? matching.find(item => items.indexOf(item) > from)
      : matching.findLast(item => items.indexOf(item) < from);
    if (next) open(next);
  };

  root.classList.add("live");
  find("q-bar").hidden = false;
  for (const [key, one] of Object.entries(controls)) {
    one.value = start[key];
    one.addEventListener(key === "find" ? "input" : "change", () => { shownItems = PAGE; filter(); });
  }
  find("q-more").addEventListener("click", () => { shownItems += PAGE; draw(); });
  for (const item of items) item.addEventListener("toggle", () => { if (item.open) fill(item); remember(); });
  addEventListener("hashchange", restore);
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /INPUT|SELECT|TEXTAREA/.test(event.target.tagName);
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing || !fold.open) return;
    const at = shots.indexOf(Number(event.key));
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") { controls.find.focus(); controls.find.scrollIntoView({block: "center"}); }
    else if (at >= 0) { controls.s.value = shots[at]; filter(); }
    else return;
    event.preventDefault();
  });
  writing = true;  // the address is read before it is written
  filter();
  writing = false;
  restore();
})();
