// The results of this browser, as cards. Those out of sight are not laid out, and their pictures not decoded.
import { all, clear, forget, keep } from "./archive.js";
import { toast } from "../browser/toast.js";
import { t } from "../texts/texts.js";

const element = (id) => document.getElementById(id);
const EXCERPT = 600;
const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
	star: "m10 3 2.1 4.6 5 .6-3.7 3.4 1 5L10 14.1l-4.4 2.5 1-5L2.9 8.2l5-.6z",
	copy: "M7 7h9v9H7zM4 13V4h9",
	download: "M10 3v9m-4-4 4 4 4-4M4 16h12",
	again: "M15.5 7A6.5 6.5 0 1 0 16.5 11M16 3v4h-4",
	remove: "m5 5 10 10M15 5 5 15",
};

export class Gallery {
	#shelf = element("shelf");
	#removed = [];
	#acts;
	#seen = new IntersectionObserver((entries) => entries.forEach(reveal), { rootMargin: "300px" });
	#others = channel();

	/** `acts`: functions of a result. */
	constructor(acts) {
		this.#acts = { ...acts, remove: (result) => this.#remove(result), star: (result) => this.#star(result) };
		element("search").addEventListener("input", () => this.#filter());
		element("starred").addEventListener("click", ({ target }) => {
			target.ariaPressed = target.ariaPressed !== "true";
			this.#filter();
		});
		element("download-all").addEventListener("click", () => acts.downloadAll(this.results));
		element("clear").addEventListener("click", () => this.#clear());
		this.#shelf.addEventListener("focusin", ({ target }) => this.#activate(target.closest("li")));
		this.#shelf.addEventListener("keydown", (event) => this.#move(event));
		document.addEventListener("language", () => this.#count());
		if (this.#others) this.#others.onmessage = () => this.open();
	}

	/** Show what is kept, which other tabs change, too. */
	async open() {
		const shown = new Map([...this.#shelf.children].map((card) => [card.dataset.id, card]));
		const cards = (await all()).map((result) => shown.get(result.id) ?? this.#card(result));
		const focused = document.activeElement;
		this.#shelf.replaceChildren(...cards);
		focused.focus({ preventScroll: true });
		this.#filter();
	}

	async add(result) {
		const forgotten = await keep(result);
		for (const id of [result.id, ...forgotten]) this.#drop(this.#find(id));
		this.#shelf.prepend(this.#card(result));
		this.#changed();
	}

	/** Those that are shown. */
	get results() {
		return this.#shown.map(({ result }) => result);
	}

	#find(id) {
		return this.#shelf.querySelector(`[data-id="${id}"]`);
	}

	get #shown() {
		return [...this.#shelf.children].filter((card) => !card.hidden);
	}

	#filter() {
		const words = element("search").value.toLowerCase().split(/\s+/);
		const starred = element("starred").ariaPressed === "true";
		for (const card of this.#shelf.children) {
			const { order, model, text = "", starred: star } = card.result;
			const all = `${order.prompt} ${model} ${text}`.toLowerCase();
			card.hidden = (starred && !star) || !words.every((word) => all.includes(word));
		}
		this.#count();
	}

	async #star(result) {
		result.starred = !result.starred;
		const card = this.#find(result.id);
		card.querySelector("[data-act=star]").ariaPressed = result.starred;
		await keep(result);
		this.#changed();
		if (card.hidden) element("starred").focus();
	}

	#changed() {
		this.#filter();
		this.#others?.postMessage("");
	}

	/** One card is reached by Tab, and from there the others by arrow keys. */
	#activate(card) {
		for (const button of this.#shelf.querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
		for (const button of card?.querySelectorAll("button") ?? []) button.tabIndex = 0;
	}

	#move(event) {
		const cards = this.#shown;
		const columns = getComputedStyle(this.#shelf).gridTemplateColumns.split(" ").length;
		const at = cards.indexOf(event.target.closest("li"));
		const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: cards.length - 1 - at };
		const next = cards[at + steps[event.key]];
		if (!next) return;
		event.preventDefault();
		next.querySelector(".open").focus();
	}

	#card(result) {
		const card = document.createElement("li");
		card.dataset.id = result.id;
		card.result = result;
		const open = button("open", () => this.#acts.show(result));
		open.append(result.kind === "text" ? excerpt(result.text) : view(result));
		const prompt = document.createElement("span");
		prompt.className = "prompt";
		prompt.dir = "auto";
		prompt.textContent = result.order.prompt.slice(0, EXCERPT);
		open.append(prompt);
		const tools = document.createElement("div");
		tools.className = "tools";
		for (const [act, path] of Object.entries(ICONS)) {
			const tool = button(act, () => this.#acts[act](result));
			name(tool, act);
			tool.append(icon(path));
			if (act === "star") tool.ariaPressed = Boolean(result.starred);
			tools.append(tool);
		}
		card.append(open, tools);
		if (result.kind === "image") this.#seen.observe(card);
		return card;
	}

	async #remove(result) {
		await forget(result.id);
		this.#drop(this.#find(result.id));
		this.#changed();
		this.#removed = [...(element("toast").childElementCount ? this.#removed : []), result];
		toast(t("removed"), async () => {
			for (const each of this.#removed) await keep(each);
			await this.open();
			this.#changed();
		});
	}

	/** Who is on it goes on with the next one. */
	#drop(card) {
		const held = card?.matches(":focus-within");
		const at = this.#shown.indexOf(card);
		card?.remove();
		const next = this.#shown[at] ?? this.#shown.at(-1);
		if (held) (next?.querySelector(".open") ?? element("serve")).focus({ preventScroll: true });
	}

	async #clear() {
		if (!confirm(t("clear.sure"))) return;
		await clear();
		this.#shelf.replaceChildren();
		this.#changed();
		element("serve").focus({ preventScroll: true });
	}

	#count() {
		const count = this.#shelf.children.length;
		if (!this.#shelf.matches(":focus-within")) this.#activate(this.#shown[0]);
		const shown = this.#shown.length;
		element("empty").hidden = shown > 0;
		element("empty").textContent = t(count ? "search.none" : "gallery.empty");
		element("manage").hidden = !count;
		element("count").textContent = shown < count ? t("gallery.count", { count: shown, most: count }) : count || "";
	}
}

/** To other tabs; null where Firefox blocks cookies. */
function channel() {
	try {
		return new BroadcastChannel("gallery");
	} catch {
		return null;
	}
}

function button(kind, act) {
	const made = document.createElement("button");
	made.className = kind;
	made.tabIndex = -1;
	made.addEventListener("click", act);
	return made;
}

/** Name a button, in whatever language the page is switched to. */
function name(tool, act) {
	tool.dataset.act = act;
	for (const attribute of ["title", "aria-label"]) {
		tool.setAttribute(`data-t-${attribute}`, act);
		tool.setAttribute(attribute, t(act));
	}
}

const drawn = {};

function icon(path) {
	return (drawn[path] ??= draw(path)).cloneNode(true);
}

function draw(path) {
	const svg = document.createElementNS(SVG, "svg");
	svg.setAttribute("viewBox", "0 0 20 20");
	svg.ariaHidden = true;
	svg.append(document.createElementNS(SVG, "path"));
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

function view({ pictures: [{ blob }] }) {
	const box = document.createElement("span");
	box.className = "view";
	const image = box.appendChild(new Image());
	image.alt = "";
	image.blob = blob;
	return box;
}

/** Only pictures in sight, or nearly so, take memory. */
function reveal({ isIntersecting, target }) {
	const image = target.querySelector("img");
	if (isIntersecting && !image.src) image.src = URL.createObjectURL(image.blob);
	else if (!isIntersecting && image.src) {
		URL.revokeObjectURL(image.src);
		image.removeAttribute("src");
	}
}
