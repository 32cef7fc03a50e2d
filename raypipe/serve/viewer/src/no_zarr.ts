// Stands in for the package zarrita, which NiiVue uses for OME-Zarr alone: the service sends NIfTI.
function refuse(): never {
  throw new Error("this page reads NIfTI, not Zarr");
}

export const open = refuse;
export const root = refuse;
export const get = refuse;
export const slice = refuse;
export class FetchStore {
  constructor() {
    refuse();
  }
}
