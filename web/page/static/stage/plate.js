// The dish: a text or pictures, as they grow and as they are served.
import { t } from "../texts/texts.js";
import { Prose } from "./prose.js";

const element = (id) => document.getElementById(id);
const FADE = 400;
const LIFT = 300;
const SMALL = 256; // longest side of what lies on a round plate
const VERSE_LINE = 24;

export class Plate {
	#prose = new Prose(element("answer"));
	#pictures = element("pictures");
	#urls = new Set();
	#turns = 0;
	/** Whether pictures lie on round plates. */
	small = false;

	/** Clear it for an answer to what was said before. */
	begin(turns = []) {
		this.#turns = turns.length;
		element("turns").replaceChildren(...turns.map(turn));
		this.clear();
	}

	/** Nothing is on it yet. */
	clear() {
		this.#prose.clear();
		element("text").className = "text";
		element("text").hidden = !this.#turns;
		element("reasoning").hidden = this.#pictures.hidden = true;
		element("thoughts").replaceChildren();
		this.#pictures.replaceChildren();
		for (const url of this.#urls) URL.revokeObjectURL(url);
		this.#urls.clear();
		element("idle").hidden = this.#turns > 0;
		element("idle").classList.remove("lifted");
	}

	write(piece) {
		this.#lift();
		element("text").hidden = false;
		if (!this.#prose.text && !this.#turns && /^\p{Script=Han}/u.test(piece)) element("text").classList.add("verse");
		this.#prose.append(piece);
	}

	think(piece) {
		this.#lift();
		element("reasoning").hidden = false;
		element("thoughts").append(piece);
	}

	/** One of the pictures as it looks by now. */
	preview(index, blob, alt) {
		this.#paint(index, blob, alt).classList.add("rough");
	}

	serve(result) {
		this.#lift();
		if (result.kind === "text") {
			element("text").hidden = false;
			this.#prose.settle(result.text).then(() => this.#turns && toEnd());
			element("text").classList.toggle("verse", !this.#turns && isVerse(result.text));
			element("reasoning").hidden = !result.reasoning;
			element("thoughts").textContent = result.reasoning ?? "";
			return;
		}
		const [{ width, height }] = result.pictures;
		this.small = isSmall(width, height);
		result.pictures.forEach(({ blob, width, height }, index) => {
			const image = this.#paint(index, blob, t("picture", { index: index + 1, prompt: result.order.prompt }));
			Object.assign(image, { width, height });
			image.parentElement.lastElementChild.textContent = `${width} × ${height}`;
		});
	}

	#lift() {
		const idle = element("idle");
		if (idle.hidden || idle.classList.contains("lifted")) return;
		idle.classList.add("lifted");
		setTimeout(() => (idle.hidden ||= idle.classList.contains("lifted")), LIFT);
	}

	/** Over what was there, until it can be seen. */
	#paint(index, blob, alt) {
		this.#lift();
		this.#pictures.hidden = false;
		while (this.#pictures.children.length <= index) this.#pictures.append(frame());
		this.#pictures.classList.toggle("single", this.#pictures.children.length === 1);
		const frameOf = this.#pictures.children[index];
		frameOf.classList.toggle("small", this.small);
		const before = [...frameOf.querySelectorAll("img")];
		const image = new Image();
		image.alt = alt;
		image.src = URL.createObjectURL(blob);
		this.#urls.add(image.src);
		frameOf.lastElementChild.before(image);
		before.forEach((each) => (each.className = "old"));
		image.decode().catch(() => {}).then(() => {
			image.classList.add("shown");
			setTimeout(() => before.forEach((each) => this.#drop(each)), before.length ? FADE : 0);
		});
		return image;
	}

	#drop(image) {
		image.remove();
		URL.revokeObjectURL(image.src);
		this.#urls.delete(image.src);
	}
}

function toEnd() {
	element("text").scrollTop = element("text").scrollHeight;
}

function turn({ role, content }) {
	const made = document.createElement("div");
	made.className = role;
	made.dir = "auto";
	if (role === "user") made.textContent = content;
	else new Prose(made).settle(content).then(toEnd);
	return made;
}

function frame() {
	const made = document.createElement("figure");
	made.append(document.createElement("figcaption"));
	return made;
}

export const isSmall = (...sides) => Math.max(...sides) <= SMALL;

/** Chinese verse, line by line; what is longer or in other letters is read as prose. */
export function isVerse(text) {
	const lines = text.trim().split("\n");
	return /^\p{Script=Han}/u.test(text.trim()) && lines.every((line) => line.length <= VERSE_LINE);
}
