// The map: a squarified treemap of one directory at a time, with a list of what is in it. Names get
// into the page as text only, never as markup.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const [NAME, BYTES, FILES, LAYER, KIND, CHILDREN, WASTE] = [0, 1, 2, 3, 4, 5, 6];
  const [WASTED, REST, DIR] = [1, 2, 3];
  const HEADING = 17, BORDER = 2, DEEP = 4, DEEPEST = 7, ROOM = 24000, CHARACTER = 6.6, ROWS = 300;
  const get = (id) => document.getElementById(id);
  const [canvas, list, crumbs, hint, lead] = ["canvas", "list", "crumbs", "hint", "lead"].map(get);
  const views = Object.fromEntries(data.views);
  // The directories from the top to the one that is shown.
  let view = data.views[0][0], trail = [views[view]];

  const here = () => trail[trail.length - 1];
  const children = (node) => node[CHILDREN] || [];
  const opens = (node) => children(node).length > 0;
  const wasted = (node) => node[WASTE] > 0 && node[WASTE] >= node[BYTES] * 0.98;
  const colour = (node) => data.colours[node[LAYER] - 1];

  function size(bytes) {
    let value = bytes, unit = 0;
    while (value >= 999.5 && unit < 6) { value /= 1000; unit += 1; }
    const text = value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);
    return (text.includes(".") ? text.replace(/\.?0+$/, "") : text) + ["B", "kB", "MB", "GB", "TB", "PB", "EB"][unit];
  }
  // Of a view of what grew, the bytes that are freed are those that others count as wasted.
  function amount(node) {
    const freed = node[WASTE] || 0, grown = node[BYTES] - freed;
    if (view !== "growth" || node[BYTES] === 0) return size(node[BYTES]);
    return [grown > 0 ? "+" + size(grown) : "", freed > 0 ? "−" + size(freed) : ""].join(" ").trim();
  }
  const number = (value) => value.toLocaleString("en-US");
  const files = (count) => `${number(count)} ${count === 1 ? "file" : "files"}`;
  const label = (node) => node[KIND] === REST ? `${number(node[FILES])} smaller` : node[NAME];
  const share = (node) => here()[BYTES] > 0 ? `${(100 * node[BYTES] / here()[BYTES]).toFixed(1)} %` : "";

  function describe(nodes) {
    const node = nodes[nodes.length - 1];
    const names = nodes.slice(1).filter((one) => one[KIND] !== REST).map((one) => one[NAME]);
    const path = view !== "layers" ? "/" + names.join("/") : names.length ? names.join("/") : "All layers";
    const parts = [amount(node)];
    if (node[KIND] === REST) return `${files(node[FILES])}, each smaller than what is shown, in ${path}: ${parts[0]}`;
    if (node[KIND] === DIR) parts.push(files(node[FILES]));
    else if (data.words) parts.push(data.words[node[LAYER] - 1]);
    else if (view === "dirs" || node[KIND] === WASTED) parts.push(`stored by layer ${node[LAYER]}`);
    if (data.words) return `${path}: ${parts.join(", ")}`;
    if (node[KIND] === WASTED) parts.push("hidden by a later one");
    else if (node[WASTE] > 0) parts.push(`${size(node[WASTE])} of it hidden by later layers`);
    return `${path}: ${parts.join(", ")}`;
  }

  function element(name, attributes, parent) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (parent) parent.append(made);
    return made;
  }
  function html(name, className, text, parent) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  // As in the program that wrote this page: rows along the shorter side, each as long as that makes
  // its worst rectangle no worse.
  function squarify(nodes, rect) {
    const total = nodes.reduce((sum, node) => sum + node[BYTES], 0);
    const found = [];
    if (total <= 0 || rect.w <= 0 || rect.h <= 0) return found;
    const areas = nodes.map((node) => node[BYTES] * rect.w * rect.h / total);
    let { x, y, w, h } = rect, start = 0;
    while (start < nodes.length && areas[start] > 0) {
      const side = Math.min(w, h), square = side * side;
      const worst = (last, sum) => Math.max(square * areas[start] / (sum * sum), sum * sum / (square * last));
      let end = start + 1, sum = areas[start];
      while (end < nodes.length && areas[end] > 0
          && worst(areas[end], sum + areas[end]) <= worst(areas[end - 1], sum)) {
        sum += areas[end];
        end += 1;
      }
      const wide = w >= h, depth = side > 0 ? sum / side : 0;
      for (let at = start, along = 0; at < end; at += 1) {
        const length = depth > 0 ? areas[at] / depth : 0;
        found.push({ node: nodes[at], rect: wide ? { x, y: y + along, w: depth, h: length } : { x: x + along, y, w: length, h: depth } });
        along += length;
      }
      if (wide) { x += depth; w = Math.max(0, w - depth); } else { y += depth; h = Math.max(0, h - depth); }
      start = end;
    }
    return found;
  }

  function fitted(text, width) {
    const room = Math.floor((width - 8) / CHARACTER);
    const columns = (c) => /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]|[\u{1f000}-\u{3fffd}]/u.test(c) ? 2 : 1;
    const all = Array.from(text);
    if (room < 3) return "";
    if (all.reduce((sum, c) => sum + columns(c), 0) <= room) return text;
    let left = room - 1, cut = "";
    for (const c of all) {
      left -= columns(c);
      if (left < 0) break;
      cut += c;
    }
    return cut ? cut + "…" : "";
  }

  function paint(svg, nodes, within, depth) {
    for (const { node, rect } of squarify(children(nodes[nodes.length - 1]), within)) {
      if (rect.w < 2 || rect.h < 2) continue;
      const path = [...nodes, node];
      const deepest = rect.w * rect.h >= ROOM ? DEEPEST : DEEP;
      const open = opens(node) && depth < deepest && rect.w >= 64 && rect.h >= 48;
      const plain = !open && node[KIND] !== REST;
      const g = element("g", { class: open ? "frame" : plain ? "tile" : "rest" }, svg);
      const place = { x: rect.x, y: rect.y, width: rect.w, height: rect.h };
      const box = element("rect", place, g);
      const [fill, ink] = plain && colour(node) || [];
      if (fill) box.setAttribute("fill", fill);
      if (!open && wasted(node)) element("rect", { ...place, class: "hatch", fill: "url(#hatch)" }, g);
      g.path = path;
      if (opens(node)) g.classList.add("zoom");
      if (depth === 1) {
        g.setAttribute("tabindex", "-1");
        g.setAttribute("role", opens(node) ? "button" : "img");
        g.setAttribute("aria-label", describe(path));
      }
      const text = rect.h >= 16 ? fitted(label(node), rect.w) : "";
      const write = (y, content, extra) => {
        const made = element("text", { x: rect.x + 5, y: rect.y + y, "aria-hidden": "true", ...extra }, g);
        if (ink) made.setAttribute("fill", ink);
        made.textContent = content;
      };
      if (text) write(open ? 12.5 : 14, text);
      if (!open && rect.h >= 34 && rect.w >= 60) write(28, fitted(amount(node), rect.w), { class: "size" });
      if (open) paint(svg, path, { x: rect.x + BORDER, y: rect.y + HEADING + BORDER, w: rect.w - 2 * BORDER, h: rect.h - HEADING - 2 * BORDER }, depth + 1);
    }
  }

  function draw() {
    const { clientWidth: w, clientHeight: h } = canvas;
    const svg = element("svg", { viewBox: `0 0 ${w} ${h}`, role: "group", "aria-label": `Map of ${describe(trail)}. Arrow keys move, Enter goes in, Escape goes up.` });
    paint(svg, trail, { x: 0, y: 0, w, h }, 1);
    const first = svg.querySelector("g[tabindex]");
    if (first) first.setAttribute("tabindex", "0");
    canvas.replaceChildren(svg);
  }

  function enumerate() {
    const rows = children(here()).slice(0, ROWS).map((node) => {
      const item = html("li");
      const row = html(opens(node) ? "button" : "span", "row", undefined, item);
      if (opens(node)) {
        row.type = "button";
        row.addEventListener("click", () => go([...trail, node], true));
      }
      const swatch = element("svg", { class: "swatch", width: 12, height: 12, "aria-hidden": "true" }, row);
      const [fill] = node[KIND] !== REST && colour(node) || [];
      element("rect", fill ? { width: 12, height: 12, fill } : { width: 12, height: 12, class: "under" }, swatch);
      if (wasted(node)) element("rect", { width: 12, height: 12, fill: "url(#hatch)" }, swatch);
      html("span", "name", label(node) + (opens(node) && view !== "layers" ? "/" : ""), row);
      html("span", "amount", amount(node), row);
      const bar = element("svg", { class: "bar", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, row);
      element("rect", { class: "of", width: 100, height: 4 }, bar);
      element("rect", { width: here()[BYTES] > 0 ? 100 * node[BYTES] / here()[BYTES] : 0, height: 4 }, bar);
      row.title = `${describe([...trail, node])} (${share(node)})`;
      return item;
    });
    list.replaceChildren(...rows);
    list.scrollTop = 0;
  }

  function lay() {
    crumbs.replaceChildren();
    trail.forEach((node, at) => {
      if (at > (view !== "layers" ? 1 : 0)) html("span", "sep", view !== "layers" ? "/" : "›", crumbs);
      const button = html("button", "", node[NAME], crumbs);
      button.type = "button";
      if (at === trail.length - 1) button.setAttribute("aria-current", "location");
      button.addEventListener("click", () => go(trail.slice(0, at + 1), true));
    });
    html("span", "sum", `${amount(here())} in ${files(here()[FILES])}`, crumbs);
  }

  function go(path, focus) {
    if (!opens(path[path.length - 1])) return;
    trail = path;
    lay();
    enumerate();
    draw();
    hint.textContent = describe(trail);
    if (focus) crumbs.querySelector("[aria-current]").focus({ preventScroll: true });
  }
  const up = (focus) => { if (trail.length > 1) go(trail.slice(0, -1), focus); };

  // The deepest directory that a tile is, or is in.
  const target = (path) => opens(path[path.length - 1]) ? path : path.slice(0, -1);
  const tile = (event) => event.target.closest && event.target.closest("g");

  canvas.addEventListener("click", (event) => {
    const g = tile(event);
    if (g) go(target(g.path), false);
  });
  for (const kind of ["mouseover", "focusin"]) canvas.addEventListener(kind, (event) => {
    const g = tile(event);
    if (g) hint.textContent = describe(g.path);
  });
  canvas.addEventListener("keydown", (event) => {
    const g = tile(event), all = Array.from(canvas.querySelectorAll("g[tabindex]"));
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (g && move) {
      const next = all[all.indexOf(g) + move];
      if (next) {
        g.setAttribute("tabindex", "-1");
        next.setAttribute("tabindex", "0");
        next.focus();
      }
    } else if (g && (event.key === "Enter" || event.key === " ")) {
      go(g.path, false);
      const first = canvas.querySelector("g[tabindex]");
      if (first) first.focus();
    } else if (event.key === "Escape" || event.key === "Backspace") {
      up(true);
    } else {
      return;
    }
    event.preventDefault();
  });
  for (const place of [list, crumbs]) place.addEventListener("keydown", (event) => {
    if (event.key === "Escape") up(true);
  });
  for (const button of get("switch").children) button.addEventListener("click", () => {
    view = button.dataset.view;
    for (const other of get("switch").children) other.setAttribute("aria-pressed", String(other === button));
    show();
  });
  function show() {
    trail = [views[view]];
    const any = here()[BYTES] > 0, { lead: full, none } = get("switch").querySelector(`[data-view=${view}]`).dataset;
    lead.textContent = any ? full : none;
    for (const part of [get("explorer"), crumbs, hint]) part.hidden = !any;
    if (any) go(trail, false);
  }

  let width = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth !== width) {
      width = canvas.clientWidth;
      draw();
    }
  }).observe(canvas);
  get("switch").hidden = false;
  get("pictures").hidden = true;
  show();
})();
