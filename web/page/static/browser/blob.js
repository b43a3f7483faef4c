/** A file from its base64. */
export function blobOf(data, type) {
	return new Blob([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))], { type });
}
