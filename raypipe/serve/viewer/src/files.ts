// Files that a person drops or chooses. In: a drop, an <input>. Out: a form to send.
// File names often hold names of patients, so only their endings leave this machine.

const ENDINGS = /\.(dcm|ima|zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz|nii|nii\.gz|png|jpe?g|tiff?)$/i;
const NEVER = /^(\.|__macosx|thumbs\.db$|desktop\.ini$|dicomdir$)/i;

/** All files of a drop, folders included. */
export async function droppedFiles(data: DataTransfer): Promise<File[]> {
  // Entries have to be taken before the first await: the list of a drop ends with its event.
  const entries = [...data.items].map((item) => item.webkitGetAsEntry()).filter((e) => e !== null);
  if (entries.length === 0) return wanted([...data.files]);
  const found: File[] = [];
  for (const entry of entries) await walk(entry, found);
  return wanted(found);
}

/** The files worth sending. */
export function wanted(files: File[]): File[] {
  return files.filter((file) => file.size > 0 && !NEVER.test(file.name));
}

/** The form that the service takes. */
export function asForm(files: File[], adapter: string): FormData {
  const form = new FormData();
  files.forEach((file, index) => {
    const ending = ENDINGS.exec(file.name)?.[0].toLowerCase() ?? "";
    form.append("files", file, `${String(index + 1).padStart(6, "0")}${ending}`);
  });
  if (adapter) form.append("adapter", adapter);
  return form;
}

/** A number of bytes in words. */
export function bytesInWords(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(unit > 1 && value < 10 ? 1 : 0)} ${units[unit]}`;
}

async function walk(entry: FileSystemEntry, found: File[]): Promise<void> {
  if (entry.isFile) {
    found.push(
      await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)),
    );
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A reader hands out its folder in parts; an empty part is the end.
    const part = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (part.length === 0) return;
    for (const child of part) await walk(child, found);
  }
}
