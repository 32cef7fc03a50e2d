// Bundle src/ and its dependencies into static/, byte for byte the same on every machine.
// In: src/, the packages of package-lock.json. Out: static/, with the licences of what is in it
// and the hash of the sources that it was built from.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(here);
const out = "static";

rmSync(out, { recursive: true, force: true });
mkdirSync(out);

// NiiVue names pages in comments of its shaders; the bundle refers to no host.
const withoutLinks = {
  name: "without-links",
  setup(build) {
    build.onLoad({ filter: /@niivue\/niivue\/.*\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replaceAll(/(git\+)?https?:\/\/[^\s"'`)]+/g, ""),
      loader: "js",
    }));
  },
};

const options = {
  outdir: out,
  bundle: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  charset: "utf8",
  legalComments: "none",
  metafile: true,
};
await esbuild.build({
  ...options,
  entryPoints: ["src/app.ts", "src/styles.css"],
  external: ["./niivue.js"],
});
const built = await esbuild.build({
  ...options,
  entryPoints: ["src/niivue.ts"],
  // Readers of other formats bring 1.4 MB of decoders; the service sends NIfTI.
  alias: { zarrita: "./src/no_zarr.ts" },
  plugins: [withoutLinks],
});

for (const name of ["index.html", "icon.svg"]) cpSync(join("src", name), join(out, name));
writeFileSync(join(out, "LICENSES.txt"), licences(built.metafile));
writeFileSync(join(out, "SOURCE"), `${sourceHash()}\n`);

/** Names, versions and licence texts of all packages that are in the bundle. */
function licences(metafile) {
  const names = new Set();
  for (const output of Object.values(metafile.outputs)) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
      if (found && bytesInOutput > 0) names.add(found[1]);
    }
  }
  const parts = ["Packages from npm that are part of this page, and their licences."];
  for (const name of [...names].sort()) {
    const folder = join("node_modules", name);
    const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const kept = join("licences", `${name.replace("/", "__")}.txt`);
    const text = readFileSync(file ? join(folder, file) : kept, "utf8").trim();
    parts.push(`${"=".repeat(78)}\n${name} ${about.version} (${about.license})\n\n${text}`);
  }
  return `${parts.join("\n\n")}\n`;
}

/** SHA-256 over names and contents of all that decides what is built. */
function sourceHash() {
  const files = readdirSync("src").map((name) => `src/${name}`);
  files.push("build.mjs", "package.json", "package-lock.json");
  const hash = createHash("sha256");
  for (const file of files.sort()) {
    const content = readFileSync(file);
    hash.update(`${file}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}
