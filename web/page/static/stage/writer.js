// Text that grows: written once for each frame, a block for each line, so that long ones do not have to be laid out anew.
export class Writer {
	#element;
	#pending = "";
	#frame = 0;
	#line = null;

	constructor(element) {
		this.#element = element;
	}

	get pending() {
		return this.#pending;
	}

	append(text) {
		this.#pending += text;
		this.#frame ||= requestAnimationFrame(() => this.#flush());
	}

	clear() {
		cancelAnimationFrame(this.#frame);
		this.#frame = 0;
		this.#pending = "";
		this.#line = null;
		this.#element.replaceChildren();
	}

	/** Set the whole text, unless it is there. */
	settle(text) {
		cancelAnimationFrame(this.#frame);
		this.#flush();
		const lines = Array.from(this.#element.children, (line) => line.textContent);
		if (lines.join("\n") === text) return;
		this.clear();
		this.#pending = text;
		this.#flush();
		this.#element.scrollTop = 0;
	}

	#flush() {
		this.#frame = 0;
		if (!this.#pending) return;
		const box = this.#element;
		const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
		const [first, ...more] = this.#pending.split("\n");
		this.#pending = "";
		const lines = document.createDocumentFragment();
		if (this.#line) this.#line.appendData(first);
		else more.unshift(first);
		for (const text of more) {
			const line = document.createElement("div");
			line.dir = "auto";
			this.#line = line.appendChild(document.createTextNode(text));
			lines.append(line);
		}
		box.append(lines);
		if (atEnd) box.scrollTop = box.scrollHeight;
	}
}
