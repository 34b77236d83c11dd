import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const files = { "/": ["index.html", "text/html"], "/main.js": ["main.js", "text/javascript"] };
const env = `window.env = ${JSON.stringify({ API_URL: process.env.API_URL })};\n`;

createServer(async (request, response) => {
  const found = files[request.url];
  if (request.url === "/env.js") {
    response.writeHead(200, { "content-type": "text/javascript", "cache-control": "no-store" }).end(env);
  } else if (found) {
    const body = await readFile(new URL(`public/${found[0]}`, import.meta.url));
    response.writeHead(200, { "content-type": found[1] }).end(body);
  } else {
    response.writeHead(404).end();
  }
}).listen(Number(process.env.PORT), "127.0.0.1");
