// Writes what the built page was built from, so that a test without Node can tell whether the build lags behind.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const files = ["index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"];
for (const folder of ["public", "src"])
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) files.push(join(entry.parentPath, entry.name).replaceAll("\\", "/"));

const digest = createHash("sha256");
for (const name of files.sort()) digest.update(`${name}\0`).update(readFileSync(name)).update("\0");
writeFileSync("../serving/demo/built_from.txt", `${digest.digest("hex")}\n`);
