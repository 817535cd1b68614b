// Makes a component of a module in JavaScript. usage: componentize.js MODULE WIT COMPONENT

import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const [sourcePath, witPath, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: "plugin-with-http",
  // A plugin answers calls, not requests.
  disableFeatures: ["fetch-event"],
});
await writeFile(output, component);
