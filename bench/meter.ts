/**
 * Preloaded into every process of a benchmark (`--import`): answers the message `usage` with what the process has used,
 * and ends it when the main program is gone, however that ended.
 */
process.on("message", (message) => {
  if (message !== "usage") return;
  const { user, system } = process.cpuUsage();
  process.send?.({ cpu: user + system, rss: process.memoryUsage.rss() });
});
process.on("disconnect", () => process.exit(1));
