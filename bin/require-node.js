// Says what to do where Node is too old to run the sources. Run before the tests; old syntax on purpose.
var major = Number(process.versions.node.split(".")[0]);
if (major < 24) {
  console.error(
    "This needs Node 24 or newer, but Node " +
      process.versions.node +
      " runs it. `npm ci` brings Node 24 as a package: were install scripts off? Try: npm rebuild node",
  );
  process.exit(1);
}
