//! Stacks as a tree of names, and the tree as the bars of a flame graph, level by level.
//!
//! A bar is four numbers: the gap to the bar before it, its width, what of that is its own, and the place
//! of its name. A difference has the first three once for each side. Readers find a bar's parent by its
//! place alone, so no bar is without width and children stand in the order of their parents.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::export::wire::Message;

/// Bars of a flame graph at most, and unless a reader asks for fewer.
pub(crate) const NODES: usize = 16_384;
/// Nodes of a tree while it grows, about 16 MiB: what comes later and is not in it yet is told apart no
/// more.
const GROWN: usize = 8 * NODES;

/// What stands for all that was too light to be shown.
const OTHER: &str = "other";
/// What the first bar is called.
const TOTAL: &str = "total";

/// Sums of stacks by name, for each side of a comparison.
#[derive(Debug)]
pub(crate) struct Tree<'a, const N: usize> {
    names: Vec<&'a str>,
    places: HashMap<&'a str, usize>,
    /// Parents before their children; the first is the root.
    nodes: Vec<Node<N>>,
    children: HashMap<(usize, usize), usize>,
    most: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node<const N: usize> {
    name: usize,
    parent: usize,
    width: [i64; N],
    own: [i64; N],
}

impl<const N: usize> Node<N> {
    fn weight(&self) -> i64 {
        self.width.iter().copied().fold(0, i64::saturating_add)
    }
}

fn add<const N: usize>(sums: &mut [i64; N], more: [i64; N]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(more);
    }
}

impl<'a, const N: usize> Tree<'a, N> {
    pub(crate) fn new() -> Self {
        Self::within(GROWN)
    }

    pub(super) fn within(most: usize) -> Self {
        let mut tree = Self {
            names: Vec::new(),
            places: HashMap::new(),
            nodes: Vec::new(),
            children: HashMap::new(),
            most,
        };
        tree.push(TOTAL, 0);
        tree
    }

    /// Adds a stack, root first, with its value on each side. The heaviest should come first.
    pub(crate) fn add(&mut self, stack: impl Iterator<Item = &'a str>, values: [i64; N]) {
        let mut at = 0;
        self.widen(at, values);
        for name in stack {
            let child = self.child(at, name);
            let is_late = child.is_none() && self.nodes.len() >= self.most;
            at = match child {
                Some(child) => child,
                None if is_late => self.other(at),
                None => self.push(name, at),
            };
            self.widen(at, values);
            if is_late {
                break;
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            add(&mut node.own, values);
        }
    }

    fn child(&self, parent: usize, name: &str) -> Option<usize> {
        let name = self.places.get(name)?;
        self.children.get(&(parent, *name)).copied()
    }

    fn other(&mut self, parent: usize) -> usize {
        let held = self.child(parent, OTHER);
        held.unwrap_or_else(|| self.push(OTHER, parent))
    }

    fn push(&mut self, name: &'a str, parent: usize) -> usize {
        let name = *self.places.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        let place = self.nodes.len();
        self.nodes.push(Node {
            name,
            parent,
            width: [0; N],
            own: [0; N],
        });
        // The root is nobody's child.
        if place > 0 {
            self.children.insert((parent, name), place);
        }
        place
    }

    fn widen(&mut self, node: usize, width: [i64; N]) {
        if let Some(node) = self.nodes.get_mut(node) {
            add(&mut node.width, width);
        }
    }

    fn name(&self, node: &Node<N>) -> &'a str {
        self.names.get(node.name).copied().unwrap_or_default()
    }

    /// The heaviest nodes only; what is lighter is one node below its parent.
    fn pruned(&self, most: usize) -> Self {
        let mut heaviest: Vec<(usize, &Node<N>)> = self.nodes.iter().enumerate().collect();
        // A parent is no lighter than its child and stands before it: none goes that has one left.
        heaviest.sort_by_key(|(place, node)| (Reverse(node.weight()), *place));
        let mut is_kept = vec![false; self.nodes.len()];
        for (place, _) in heaviest.into_iter().take(most.max(1)) {
            if let Some(kept) = is_kept.get_mut(place) {
                *kept = true;
            }
        }
        let mut pruned = Self::within(usize::MAX);
        let mut moved: Vec<Option<usize>> = Vec::with_capacity(self.nodes.len());
        for (node, is_kept) in self.nodes.iter().zip(is_kept) {
            let to = match moved.get(node.parent).copied() {
                // Nothing has moved before the root, which is there already.
                None => Some(0),
                Some(Some(parent)) if is_kept => Some(pruned.push(self.name(node), parent)),
                Some(Some(parent)) => Some(pruned.other(parent)),
                // Within what has become one node.
                Some(None) => None,
            };
            if let Some(to) = to.and_then(|to| pruned.nodes.get_mut(to)) {
                add(&mut to.width, node.width);
                add(&mut to.own, if is_kept { node.own } else { node.width });
            }
            moved.push(to.filter(|_| is_kept));
        }
        pruned
    }

    /// The bars of the heaviest nodes; a parent of lighter ones has one bar more, for all of them.
    pub(crate) fn flame(&self, most: usize) -> Flame<'a, N> {
        if self.nodes.len() > most {
            self.pruned(most).drawn()
        } else {
            self.drawn()
        }
    }

    fn drawn(&self) -> Flame<'a, N> {
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (place, node) in self.nodes.iter().enumerate().skip(1) {
            if let Some(siblings) = below.get_mut(node.parent).filter(|_| node.weight() > 0) {
                siblings.push(place);
            }
        }
        let mut flame = Flame {
            names: Vec::new(),
            levels: Vec::new(),
            totals: self.nodes.first().map_or([0; N], |root| root.width),
            most_own: 0,
        };
        let mut names: HashMap<&str, i64> = HashMap::new();
        let mut level: Vec<(usize, [i64; N])> = vec![(0, [0; N])];
        while !level.is_empty() {
            let mut bars = Vec::new();
            let mut ends = [0_i64; N];
            let mut next = Vec::new();
            for (place, left) in level {
                let Some(node) = self.nodes.get(place) else {
                    continue;
                };
                for (((left, end), width), own) in left
                    .into_iter()
                    .zip(&mut ends)
                    .zip(node.width)
                    .zip(node.own)
                {
                    bars.extend([left.saturating_sub(*end), width, own]);
                    *end = left.saturating_add(width);
                    flame.most_own = flame.most_own.max(own);
                }
                let name = self.name(node);
                bars.push(*names.entry(name).or_insert_with(|| {
                    flame.names.push(name);
                    i64::try_from(flame.names.len() - 1).unwrap_or(i64::MAX)
                }));
                let named = |place: &usize| self.nodes.get(*place).map(|node| self.name(node));
                let mut children = below.get_mut(place).map(std::mem::take).unwrap_or_default();
                // Equal windows look equal, whatever order their stacks came in.
                children.sort_by_key(named);
                let mut left = left;
                for child in children {
                    next.push((child, left));
                    add(
                        &mut left,
                        self.nodes.get(child).map_or([0; N], |node| node.width),
                    );
                }
            }
            flame.levels.push(bars);
            level = next;
        }
        flame
    }
}

/// A flame graph.
#[derive(Debug, PartialEq)]
pub(crate) struct Flame<'a, const N: usize> {
    pub(super) names: Vec<&'a str>,
    pub(super) levels: Vec<Vec<i64>>,
    pub(super) totals: [i64; N],
    pub(super) most_own: i64,
}

impl<const N: usize> Flame<'_, N> {
    fn graph(&self) -> Message {
        let mut out = Message::default();
        for name in &self.names {
            out.bytes(1, name.as_bytes());
        }
        for level in &self.levels {
            let mut bars = Message::default();
            bars.packed(1, level.iter().map(|number| number.cast_unsigned()));
            out.message(2, &bars);
        }
        let total = self.totals.iter().copied().fold(0, i64::saturating_add);
        out.number(3, total.cast_unsigned());
        out.number(4, self.most_own.cast_unsigned());
        out
    }
}

fn response(graph: &Message) -> Message {
    let mut out = Message::default();
    out.message(1, graph);
    out
}

impl Flame<'_, 1> {
    /// The answer with this graph; one of nothing has none, which readers take for no data.
    pub(crate) fn message(&self) -> Message {
        if self.totals == [0] {
            return Message::default();
        }
        response(&self.graph())
    }
}

impl Flame<'_, 2> {
    /// The answer with this difference, which has a graph even of nothing.
    pub(crate) fn message(&self) -> Message {
        let mut graph = self.graph();
        let [left, right] = self.totals;
        graph.number(5, left.cast_unsigned());
        graph.number(6, right.cast_unsigned());
        response(&graph)
    }
}
