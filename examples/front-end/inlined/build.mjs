import { cp, readFile } from "node:fs/promises";
import { build } from "esbuild";

const lines = (await readFile(".env.production", "utf8")).trim().split("\n");
const variables = lines.map((line) => line.split(/=(.*)/));
await build({
  entryPoints: ["src/main.js"],
  outfile: "dist/main.js",
  bundle: true,
  minify: true,
  format: "esm",
  define: Object.fromEntries(variables.map(([name, value]) => [`import.meta.env.${name}`, JSON.stringify(value)])),
});
await cp("index.html", "dist/index.html");
