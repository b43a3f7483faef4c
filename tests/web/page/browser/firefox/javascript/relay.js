import { connect, createServer } from "node:net";
import { once } from "node:events";

/** A way to a server that can be cut: Firefox's own offline mode leaves open connections alone. */
export class Relay {
	#sockets = new Set();
	#target;
	#cut = false;
	#server = createServer((client) => this.#join(client));

	/** Its address. */
	async to(url) {
		this.#target = Number(new URL(url).port);
		this.#server.listen(0, "127.0.0.1");
		await once(this.#server, "listening");
		return `http://127.0.0.1:${this.#server.address().port}`;
	}

	cut() {
		this.#cut = true;
		for (const socket of this.#sockets) socket.destroy();
	}

	mend() {
		this.#cut = false;
	}

	close() {
		this.cut();
		this.#server.close();
	}

	#join(client) {
		if (this.#cut) {
			client.destroy();
			return;
		}
		const server = connect(this.#target, "127.0.0.1");
		for (const [socket, other] of [[client, server], [server, client]]) {
			this.#sockets.add(socket);
			socket.on("error", () => {}); // "close" follows
			socket.on("close", () => this.#sockets.delete(socket) && other.destroy());
			socket.pipe(other);
		}
	}
}
