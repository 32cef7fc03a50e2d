// NiiVue as a module of its own: the page shows before it is loaded.
export { Niivue, NVImage, SLICE_TYPE } from "@niivue/niivue";
