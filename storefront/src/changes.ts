/** What one list has become another by. */

export interface Change {
  /** Places gained (positive) or lost by the items that are in both lists. */
  moves: Record<string, number>;
  entered: string[];
  left: string[];
}

export function compared(before: { item_id: string }[], after: { item_id: string }[]): Change {
  const old = new Map(before.map((item, place) => [item.item_id, place]));
  const now = new Set(after.map((item) => item.item_id));
  const moves: Record<string, number> = {};
  const entered: string[] = [];
  after.forEach((item, place) => {
    const was = old.get(item.item_id);
    if (was === undefined) entered.push(item.item_id);
    else moves[item.item_id] = was - place;
  });
  return { moves, entered, left: before.map((item) => item.item_id).filter((id) => !now.has(id)) };
}

export function sentence(change: Change): string {
  const moved = Object.values(change.moves).filter((places) => places !== 0).length;
  const parts = [`${change.entered.length} new`, `${moved} moved`, `${change.left.length} gone`];
  return change.entered.length + moved + change.left.length === 0 ? "the same list" : parts.join(" · ");
}
