#!/usr/bin/env node
/* Starts the command line, or says what to do where Node is too old for it. Old syntax on purpose, and neither `import`
 * nor `require`: any Node since 4 reads this file, as a module or not, and gets as far as the message. */
var major = Number(process.versions.node.split(".")[0]);
if (major < 24) {
  console.error(
    "onex-runtime needs Node 24 or newer, and this is Node " +
      process.versions.node +
      ". Install it from https://nodejs.org, or run: npx -p node@24 onex",
  );
  process.exit(1);
}

var fs = process.getBuiltinModule("fs");
var path = process.getBuiltinModule("path");
var url = process.getBuiltinModule("url");

/* npm starts this by a link in node_modules/.bin. */
var root = path.join(path.dirname(fs.realpathSync(process.argv[1])), "..");
var source = path.join(root, "src", "cli", "main.ts");
var built = path.join(root, "dist", "cli", "main.js");
/* A checkout runs its sources, also where an older build lies beside them. Node runs none below node_modules. */
var isCheckout = root.split(path.sep).indexOf("node_modules") === -1 && fs.existsSync(source);
/* An `import()` written here would be a syntax error for an old Node. */
var load = new Function("url", "return import(url)");

load(url.pathToFileURL(isCheckout ? source : built).href)
  .then(function (cli) {
    return cli.main(process.argv.slice(2));
  })
  .then(
    function (code) {
      process.exit(code);
    },
    function (error) {
      console.error(error);
      process.exit(1);
    },
  );
