// Markdown as nodes. No HTML is ever parsed: whatever is no mark of Markdown is text.
import { stylesheet } from "./stylesheet.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+-]*)/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])\s+/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const INLINE = /(`+)(.+?)\1|\*\*(?=\S)(.+?)(?<=\S)\*\*|(?<![\w*])[*_](?=\S)([^*_]+?)(?<=\S)[*_](?![\w*])|\[([^\]]+)\]\((https?:[^\s)]+)\)/g;

const DEEP = 8;
const LONG = 20_000; // beyond this a block is plain text: looking for marks in it would take too long

await stylesheet("markdown.css");

/** The text as blocks, and where each begins. What stands before the last one does not change any more. */
export function blocks(text) {
	const found = [];
	let block = [];
	let fence = null;
	let at = 0;
	let begin = 0;
	const end = () => {
		if (block.length) found.push({ begin, block: block.join("\n") });
		block = [];
	};
	for (const line of text.split("\n")) {
		if (!block.length) begin = at;
		at += line.length + 1;
		const mark = FENCE.exec(line)?.[1];
		if (fence) {
			block.push(line);
			if (mark?.startsWith(fence)) {
				fence = null;
				end();
			}
		} else if (mark) {
			end();
			begin = at - line.length - 1;
			fence = mark;
			block.push(line);
		} else if (!line.trim()) end();
		else {
			const alone = /^#{1,6}\s/.test(line) || RULE.test(line);
			if (alone) {
				end();
				begin = at - line.length - 1;
			}
			block.push(line);
			if (alone) end();
		}
	}
	end();
	return found;
}

/** One block as a node; what is nested deeper than anybody reads is text. */
export function node(block, depth = 0) {
	const lines = block.split("\n");
	const [first] = lines;
	const fence = FENCE.exec(first);
	if (fence) return code(lines, fence);
	const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(first);
	if (heading) return filled(`h${Math.min(heading[1].length + 2, 6)}`, heading[2]);
	if (RULE.test(block)) return document.createElement("hr");
	if (depth < DEEP && lines.every((line) => /^ {0,3}>/.test(line))) {
		const quote = document.createElement("blockquote");
		quote.append(...blocks(lines.map((line) => line.replace(/^ {0,3}> ?/, "")).join("\n")).map((inner) => node(inner.block, depth + 1)));
		return quote;
	}
	if (depth < DEEP && ITEM.test(first)) return list(lines, depth);
	if (lines.length > 1 && first.includes("|") && /^[\s|:-]*-[\s|:-]*$/.test(lines[1])) return table(lines);
	return filled("p", block);
}

function filled(tag, text) {
	const made = document.createElement(tag);
	made.dir = "auto";
	made.append(...inline(text));
	return made;
}

function inline(text) {
	if (text.length > LONG) return [text];
	const parts = [];
	let at = 0;
	for (const match of text.matchAll(INLINE)) {
		const [whole, , code, strong, emphasis, label, address] = match;
		parts.push(text.slice(at, match.index));
		at = match.index + whole.length;
		if (code !== undefined) parts.push(element("code", code));
		else if (strong !== undefined) parts.push(element("strong", ...inline(strong)));
		else if (emphasis !== undefined) parts.push(element("em", ...inline(emphasis)));
		else parts.push(Object.assign(element("a", label), { href: address, rel: "noreferrer noopener", target: "_blank" }));
	}
	return [...parts, text.slice(at)].filter((part) => part !== "");
}

function element(tag, ...content) {
	const made = document.createElement(tag);
	made.append(...content);
	return made;
}

function code(lines, [, mark, language]) {
	const closed = lines.length > 1 && lines.at(-1).trim().startsWith(mark);
	const pre = element("pre", element("code", lines.slice(1, closed ? -1 : undefined).join("\n")));
	pre.tabIndex = 0;
	pre.dir = "ltr";
	pre.dataset.language = language;
	return pre;
}

/** What is further in belongs to the item before it. */
function list(lines, depth) {
	const [, indent, number] = ITEM.exec(lines[0]);
	const made = document.createElement(number ? "ol" : "ul");
	if (number) made.start = Number(number);
	const items = [];
	for (const line of lines) {
		const item = ITEM.exec(line);
		if (item && item[1].length <= indent.length) items.push([line.slice(item[0].length)]);
		else items.at(-1).push(line);
	}
	for (const [text, ...rest] of items) {
		const item = filled("li", text);
		const below = rest.findIndex((line) => ITEM.test(line));
		const own = below < 0 ? rest : rest.slice(0, below);
		if (own.length) item.append("\n", ...inline(own.map((line) => line.trim()).join("\n")));
		if (below >= 0) item.append(node(rest.slice(below).join("\n"), depth + 1));
		made.append(item);
	}
	return made;
}

function table([head, , ...rows]) {
	const cells = (row, tag) => row.trim().replace(/^\||\|$/g, "").split("|").map((cell) => filled(tag, cell.trim()));
	const row = (line, tag) => element("tr", ...cells(line, tag));
	return element("table", element("thead", row(head, "th")), element("tbody", ...rows.map((line) => row(line, "td"))));
}
