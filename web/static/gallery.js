// The results of this browser, as cards. Those out of sight are not laid out, and their pictures not decoded.
import { MOST, all, clear, forget, keep } from "./archive.js";
import { copyResult, download } from "./carry.js";
import { t } from "./texts.js";

const element = (id) => document.getElementById(id);
const SURE = 4_000;
const EXCERPT = 600;
const ICONS = {
  copy: "M7 7h9v9H7zM4 13V4h9",
  download: "M10 3v9m-4-4 4 4 4-4M4 16h12",
  again: "M15.5 7A6.5 6.5 0 1 0 16.5 11M16 3v4h-4",
  remove: "m5 5 10 10M15 5 5 15",
};

export class Gallery {
  #shelf = element("shelf");
  #acts;
  #seen = new IntersectionObserver((entries) => entries.forEach(reveal), { rootMargin: "300px" });

  /** `acts`: what is done with a result beside copying, keeping and removing it: `show` and `again`. */
  constructor(acts) {
    this.#acts = { ...acts, copy: copyResult, download, remove: (result) => this.#remove(result) };
    element("clear").addEventListener("click", () => this.#clear());
    document.addEventListener("language", () => this.#name());
  }

  async open() {
    const results = await all();
    this.#shelf.append(...results.map((result) => this.#card(result)));
    this.#name();
  }

  async add(result) {
    const forgotten = await keep(result);
    for (const id of [result.id, ...forgotten]) this.#find(id)?.remove();
    this.#shelf.prepend(this.#card(result));
    this.#name();
  }

  #find(id) {
    return this.#shelf.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  #card(result) {
    const card = document.createElement("li");
    card.dataset.id = result.id;
    const open = button("open", () => this.#acts.show(result));
    open.append(result.kind === "text" ? excerpt(result.text) : this.#view(result));
    const prompt = document.createElement("span");
    prompt.className = "prompt";
    prompt.dir = "auto";
    prompt.textContent = result.order.prompt.slice(0, EXCERPT);
    open.append(prompt);
    const tools = document.createElement("div");
    tools.className = "tools";
    for (const [act, path] of Object.entries(ICONS)) {
      const tool = button(act, () => this.#acts[act](result));
      tool.dataset.act = act;
      tool.append(icon(path));
      tools.append(tool);
    }
    card.append(open, tools);
    name(card);
    return card;
  }

  #view(result) {
    const view = new Image();
    view.className = "view";
    view.alt = "";
    view.blob = result.pictures[0].blob;
    this.#seen.observe(view);
    return view;
  }

  async #remove(result) {
    await forget(result.id);
    const card = this.#find(result.id);
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    (next?.querySelector(".open") ?? element("serve")).focus({ preventScroll: true });
    this.#name();
  }

  async #clear() {
    const asked = element("clear");
    if (!("sure" in asked.dataset)) {
      asked.dataset.sure = "";
      this.#name();
      setTimeout(() => {
        delete asked.dataset.sure;
        this.#name();
      }, SURE);
      return;
    }
    delete asked.dataset.sure;
    await clear();
    this.#shelf.replaceChildren();
    this.#name();
    element("serve").focus({ preventScroll: true });
  }

  /** What is said of them, in the language of the page. */
  #name() {
    const count = this.#shelf.children.length;
    element("empty").hidden = count > 0;
    element("clear").hidden = count === 0;
    element("clear").textContent = t("sure" in element("clear").dataset ? "clear.sure" : "clear");
    element("count").textContent = count ? t("gallery.count", { count, most: MOST }) : "";
    if (this.#shelf.dataset.lang !== document.documentElement.lang) [...this.#shelf.children].forEach(name);
    this.#shelf.dataset.lang = document.documentElement.lang;
  }
}

function name(card) {
  card.querySelector(".open").title = t("show");
  for (const tool of card.querySelectorAll("[data-act]")) {
    tool.title = t(tool.dataset.act);
    tool.setAttribute("aria-label", t(tool.dataset.act));
  }
}

function button(kind, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = kind;
  made.addEventListener("click", act);
  return made;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
}

function excerpt(text) {
  const words = document.createElement("span");
  words.className = "words";
  words.dir = "auto";
  words.textContent = text.slice(0, EXCERPT);
  return words;
}

function reveal({ isIntersecting, target }) {
  if (isIntersecting && !target.src) target.src = URL.createObjectURL(target.blob);
  else if (!isIntersecting && target.src) {
    URL.revokeObjectURL(target.src);
    target.removeAttribute("src");
  }
}
