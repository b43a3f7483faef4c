// Text that grows: written once for each frame, and of it only the last block, so that long ones need not be laid out anew.
const GROWN = 4_000; // a block of this length is only added to while it grows

/** As long as Markdown cannot be loaded. */
const PLAIN = {
	blocks: (text) => [{ begin: 0, block: text }],
	node: (textContent) => Object.assign(document.createElement("p"), { textContent }),
};

let markdown;
const load = () => (markdown ??= import("../on_demand/markdown.js").catch(() => (markdown = null) ?? PLAIN));

export class Prose {
	#element;
	#text = "";
	#frame = 0;
	#turn = 0;
	/** Of the block that still grows: where it begins, its text and its node. */
	#last = { begin: 0, block: "", node: null };

	constructor(element) {
		this.#element = element;
	}

	get text() {
		return this.#text;
	}

	append(text) {
		this.#text += text;
		this.#frame ||= requestAnimationFrame(() => this.#flush(false));
	}

	clear() {
		cancelAnimationFrame(this.#frame);
		this.#frame = 0;
		this.#turn += 1;
		this.#text = "";
		this.#last = { begin: 0, block: "", node: null };
		this.#element.replaceChildren();
	}

	/** Set the whole text, unless it is there. */
	async settle(text) {
		cancelAnimationFrame(this.#frame);
		if (text !== this.#text) {
			this.clear();
			this.#text = text;
		}
		await this.#flush(true);
	}

	async #flush(whole) {
		this.#frame = 0;
		const turn = this.#turn;
		const { blocks, node } = await load();
		if (turn !== this.#turn) return; // another text has begun
		const box = this.#element;
		const view = box.parentElement;
		const atEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 40;
		const { begin: from } = this.#last;
		for (const { begin, block } of blocks(this.#text.slice(from))) {
			const same = begin === 0 && this.#last.node;
			if (same && block === this.#last.block && !(whole && block.length > GROWN)) continue;
			if (same && !whole && block.length > GROWN && block.startsWith(this.#last.block)) {
				this.#last.node.append(block.slice(this.#last.block.length));
				this.#last.block = block;
				continue;
			}
			const made = node(block);
			if (same) this.#last.node.replaceWith(made);
			else box.append(made);
			this.#last = { begin: from + begin, block, node: made };
		}
		if (atEnd && !whole) view.scrollTop = view.scrollHeight;
	}
}
