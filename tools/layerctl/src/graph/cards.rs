//! Layers as people think of them: in stacks that the same images share.

use std::collections::HashMap;

use super::{ContainerNode, Graph, ImageNode, LayerNode};

/// What is drawn as one box, and the boxes that hang on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card<'a> {
    /// What is in it.
    pub(super) what: What<'a>,
    /// What stands on it, places in the list of cards.
    pub(super) children: Vec<usize>,
}

/// What is in a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// Layers on each other, the lowest first: whoever has one has all.
    Layers(Vec<&'a LayerNode>),
    /// An image with its containers.
    Image(&'a ImageNode, Vec<&'a ContainerNode>),
}

/// The cards of a graph, each before what stands on it, and which of them stand on nothing.
pub(super) fn cards(graph: &Graph) -> (Vec<Card<'_>>, Vec<usize>) {
    let mut above: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut lowest = Vec::new();
    let known: HashMap<&str, usize> =
        (0..graph.layers.len()).map(|at| (graph.layers[at].chain_id.as_str(), at)).collect();
    for (at, layer) in graph.layers.iter().enumerate() {
        match layer.parent.as_deref().filter(|parent| known.contains_key(parent)) {
            Some(parent) => above.entry(parent).or_default().push(at),
            None => lowest.push(at),
        }
    }
    let mut images: HashMap<&str, Vec<&ImageNode>> = HashMap::new();
    let mut bare = Vec::new();
    for image in &graph.images {
        match image.top.as_deref().filter(|top| known.contains_key(top)) {
            Some(top) => images.entry(top).or_default().push(image),
            None => bare.push(image),
        }
    }
    let mut containers: HashMap<&str, Vec<&ContainerNode>> = HashMap::new();
    for container in &graph.containers {
        containers.entry(&container.image).or_default().push(container);
    }
    let containers_of =
        |image: &'_ ImageNode| containers.get(image.id.as_str()).cloned().unwrap_or_default();

    let (mut made, mut roots) = (Vec::new(), Vec::new());
    // Layers at which a card begins, with the card below; the last is next.
    let mut waiting: Vec<(usize, Option<usize>)> =
        lowest.into_iter().rev().map(|at| (at, None)).collect();
    while let Some((mut at, below)) = waiting.pop() {
        let mut run = vec![&graph.layers[at]];
        let next = loop {
            let chain = graph.layers[at].chain_id.as_str();
            let next = above.get(chain).map_or(&[][..], Vec::as_slice);
            match next {
                [only] if !images.contains_key(chain) => at = *only,
                next => break next,
            }
            run.push(&graph.layers[at]);
        };
        let card = made.len();
        match below {
            Some(below) => push_child(&mut made, below, card),
            None => roots.push(card),
        }
        made.push(Card { what: What::Layers(run), children: Vec::new() });
        for image in images.get(graph.layers[at].chain_id.as_str()).into_iter().flatten() {
            let child = made.len();
            push_child(&mut made, card, child);
            let what = What::Image(image, containers_of(image));
            made.push(Card { what, children: Vec::new() });
        }
        waiting.extend(next.iter().rev().map(|at| (*at, Some(card))));
    }
    for image in bare {
        roots.push(made.len());
        made.push(Card { what: What::Image(image, containers_of(image)), children: Vec::new() });
    }
    (made, roots)
}

fn push_child(cards: &mut [Card<'_>], parent: usize, child: usize) {
    cards[parent].children.push(child);
}
