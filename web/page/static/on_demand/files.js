// Results as files: one by one, or all in a ZIP archive, which stores them as they are.
const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
	for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
	return value;
});

export function download(result) {
	for (const { name, blob } of filesOf(result)) save(blob, name);
}

export async function downloadAll(results) {
	save(await zip(results.flatMap(filesOf)), "shangcai.zip");
}

function filesOf(result) {
	const name = `${result.model}-${result.order.seed ?? result.id}`.replaceAll(/[^\w.-]/g, "_");
	if (result.kind === "text") return [{ name: `${name}.txt`, blob: new Blob([result.text], { type: "text/plain" }), at: result.at }];
	return result.pictures.map(({ blob }, index) => {
		const number = result.pictures.length > 1 ? `-${index + 1}` : "";
		return { name: `${name}${number}.${blob.type.split("/").pop()}`, blob, at: result.at };
	});
}

function save(blob, name) {
	const link = document.createElement("a");
	link.href = URL.createObjectURL(blob);
	link.download = name;
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers begin to read late
}

async function zip(files) {
	const parts = [];
	const directory = [];
	const names = new Set();
	let offset = 0;
	for (const { name: wanted, blob, at } of files) {
		let name = wanted;
		for (let number = 2; names.has(name); number += 1) name = wanted.replace(".", `_${number}.`);
		names.add(name);
		const content = new Uint8Array(await blob.arrayBuffer());
		const path = new TextEncoder().encode(name);
		const common = header(at, crc(content), content.length, path.length);
		parts.push(numbers([4, 0x04034b50]), common, path, content);
		directory.push(numbers([4, 0x02014b50], [2, 20]), common, numbers([2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), path);
		offset += 30 + path.length + content.length;
	}
	const size = directory.reduce((sum, part) => sum + part.length, 0);
	const end = numbers([4, 0x06054b50], [4, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]);
	return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** What a file's two headers have in common: version, flags (names are UTF-8), no compression, time, checksum, sizes. */
function header(at, checksum, size, length) {
	const made = new Date(at);
	const time = (made.getHours() << 11) | (made.getMinutes() << 5) | (made.getSeconds() >> 1);
	const day = ((Math.max(made.getFullYear(), 1980) - 1980) << 9) | ((made.getMonth() + 1) << 5) | made.getDate();
	return numbers([2, 20], [2, 0x800], [2, 0], [2, time], [2, day], [4, checksum], [4, size], [4, size], [2, length], [2, 0]);
}

/** Little-endian, each of so many bytes. */
function numbers(...fields) {
	return Uint8Array.from(fields.flatMap(([bytes, value]) => Array.from({ length: bytes }, (_, at) => (value >>> (8 * at)) & 255)));
}

function crc(content) {
	let sum = -1;
	for (const byte of content) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
	return ~sum >>> 0;
}
