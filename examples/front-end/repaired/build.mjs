import { cp } from "node:fs/promises";
import { build } from "esbuild";

await build({ entryPoints: ["src/main.js"], outfile: "dist/main.js", bundle: true, minify: true, format: "esm" });
await cp("index.html", "dist/index.html");
