// The first module of every component: it ties `app.js` to the host. `plugins/build-guest.sh` puts it beside it.

import { write } from "weir:plugin/tool-log@0.1.0";
import { report } from "weir:plugin/tool-progress@0.1.0";
import { secretPlaceholder, setting } from "weir:plugin/tool-config@0.1.0";
import { connect } from "./weir.js";

connect({ write, report, setting, secretPlaceholder });

export { tools } from "./app.js";
