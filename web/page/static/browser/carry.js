// Taking a result out of the page: to the clipboard, or into a file.
import { t } from "../texts/texts.js";
import { toast } from "./toast.js";

export async function copyText(text, told = t("copied")) {
	toast((await write(text)) ? told : t("copy.failed"));
}

async function write(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		return written(text); // without TLS there is no navigator.clipboard
	}
}

function written(text) {
	const before = document.activeElement;
	const area = document.createElement("textarea");
	area.value = text;
	area.className = "unseen";
	document.body.append(area);
	area.select();
	const copied = document.execCommand("copy");
	area.remove();
	before?.focus({ preventScroll: true });
	return copied;
}

export async function copyResult(result) {
	if (result.kind === "text") {
		await copyText(result.text);
		return;
	}
	const [{ blob }] = result.pictures;
	try {
		await navigator.clipboard.write([new ClipboardItem({ [blob.type]: blob })]);
		toast(t("copied"));
	} catch {
		toast(t("copy.failed"));
	}
}

export function download(result) {
	const name = `${result.model}-${result.order.seed ?? result.id}`;
	if (result.kind === "text") save(new Blob([result.text], { type: "text/plain" }), `${name}.txt`);
	else {
		result.pictures.forEach(({ blob }, index) => {
			const number = result.pictures.length > 1 ? `-${index + 1}` : "";
			save(blob, `${name}${number}.${blob.type.split("/").pop()}`);
		});
	}
}

function save(blob, name) {
	const link = document.createElement("a");
	link.href = URL.createObjectURL(blob);
	link.download = name;
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers begin to read late
}
