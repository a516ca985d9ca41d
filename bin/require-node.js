const major = Number(process.versions.node.split(".")[0]);
if (major < 24) {
  console.error(
    "The tests need Node 24, this is " +
      process.versions.node +
      ". npm ci brings it: were install scripts off (ignore-scripts)? Try: npm rebuild node",
  );
  process.exit(1);
}
