// Lets telegram-api-mock-server be driven by lines on stdin: {"inject": update}, or {} for what was called so far.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , library, token] = process.argv;
const { TelegramApiMockServer } = await import(pathToFileURL(library));
const server = new TelegramApiMockServer({ host: "127.0.0.1", port: 0 });
await server.start();
console.log(JSON.stringify(server.getAddress()));
for await (const line of createInterface({ input: process.stdin })) {
  const { inject } = JSON.parse(line);
  const said = inject ? server.injectUpdate({ token, update: inject }) : server.listOutbound(token);
  console.log(JSON.stringify(said));
}
await server.stop();
process.exit(0);
