// All tests of the package. Importing a file registers its tests.
import "./story.js";
import "./control.js";
import "./loading.js";
import "./cache.js";
import "./errors.js";
import "./experts.js";
import "./loss.js";
import "./lifetime.js";
import "./protocol.js";
import "./tune.js";
import { expose } from "./registry.js";

expose();
