// Connects the page to the feed.

import { byId, setText, timeOfDay } from "./dom.js";
import { addSnapshot } from "./metrics.js";
import { installRequests, setTraces } from "./requests.js";
import { installSwitches, showSwitches } from "./switches.js";

installRequests();
installSwitches();

const feed = new EventSource("/console/events");
feed.addEventListener("open", () => setText(byId("connection"), "Connected"));
feed.addEventListener("error", () => setText(byId("connection"), "Disconnected, reconnecting"));
feed.addEventListener("snapshot", ({ data }) => {
  const snapshot = JSON.parse(data);
  addSnapshot(snapshot);
  showSwitches(snapshot);
  setText(byId("updated"), timeOfDay(snapshot.atMs));
});
feed.addEventListener("traces", ({ data }) => setTraces(JSON.parse(data)));
