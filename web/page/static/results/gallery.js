// The results of this browser, as cards. Those out of sight are not laid out, and their pictures not decoded.
import { MOST, all, clear, forget, keep } from "./archive.js";
import { t } from "../texts/texts.js";

const element = (id) => document.getElementById(id);
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

	/** `acts`: functions of a result. */
	constructor(acts) {
		this.#acts = { ...acts, remove: (result) => this.#remove(result) };
		element("clear").addEventListener("click", () => this.#clear());
		document.addEventListener("language", () => this.#count());
	}

	async open() {
		const results = await all();
		this.#shelf.append(...results.map((result) => this.#card(result)));
		this.#count();
	}

	async add(result) {
		const forgotten = await keep(result);
		for (const id of [result.id, ...forgotten]) this.#find(id)?.remove();
		this.#shelf.prepend(this.#card(result));
		this.#count();
	}

	#find(id) {
		return this.#shelf.querySelector(`[data-id="${id}"]`);
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
			name(tool, act);
			tool.append(icon(path));
			tools.append(tool);
		}
		card.append(open, tools);
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
		this.#count();
	}

	async #clear() {
		if (!confirm(t("clear.sure"))) return;
		await clear();
		this.#shelf.replaceChildren();
		this.#count();
		element("serve").focus({ preventScroll: true });
	}

	#count() {
		const count = this.#shelf.children.length;
		element("empty").hidden = count > 0;
		element("clear").hidden = count === 0;
		element("count").textContent = count ? t("gallery.count", { count, most: MOST }) : "";
	}
}

function button(kind, act) {
	const made = document.createElement("button");
	made.className = kind;
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
