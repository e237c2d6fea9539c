//! bbolt databases, which snapshots of etcd are: their format, and a writer that writes one once
//! and from front to back.
//!
//! # The format (bbolt's version 2)
//! All integers are little-endian. The file is a row of pages of 4096 bytes, numbered from 0. A
//! page that needs more room takes the pages behind it as its overflow.
//!
//! | a page's header (16 bytes) | |
//! |---|---|
//! | number | u64 |
//! | kind: 1 branch, 2 leaf, 4 meta, 16 free list | u16 |
//! | number of elements | u16 |
//! | number of overflow pages | u32 |
//!
//! Pages 0 and 1 are **meta** pages; the valid one with the greater transaction counts:
//!
//! | meta (64 bytes) | |
//! |---|---|
//! | magic `0xED0CDAED`, version 2, page size, flags 0 | u32 each |
//! | root bucket: page, sequence | u64 each |
//! | page of the free list | u64 |
//! | number of pages | u64 |
//! | transaction | u64 |
//! | FNV-1a (64 bit) of the above | u64 |
//!
//! A **leaf** has for each element (flags u32: 1 for a bucket; where its key is, counted from the
//! element's beginning, u32; length of the key u32; length of the value u32), and then the keys,
//! each followed by its value. A **branch** has (where the key is u32; length of the key u32;
//! page u64), and then the keys: each the first one of its page. Keys ascend within a page and
//! from page to page.
//!
//! A bucket is a tree of such pages. It is an element in its parent's leaf, whose value is the
//! page of the tree's root (u64) and a sequence (u64); a root of 0 means that the root is inline,
//! a leaf page that follows in the value.
//!
//! Source: `go.etcd.io/bbolt`, `internal/common`.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

pub(super) const PAGE: usize = 4096;
pub(super) const PAGE_HEADER: usize = 16;
pub(super) const ELEMENT: usize = 16;
pub(super) const META: usize = 64;
pub(super) const BRANCH_KIND: u16 = 1;
pub(super) const LEAF_KIND: u16 = 2;
const META_KIND: u16 = 4;
const FREE_LIST_KIND: u16 = 16;
pub(super) const BUCKET_FLAG: u32 = 1;
pub(super) const MAGIC: u32 = 0xED0C_DAED;
pub(super) const VERSION: u32 = 2;

/// The pages before the first one with data: two of meta, and an empty list of free pages.
const FIRST_PAGES: u64 = 3;
const FREE_LIST_PAGE: u64 = 2;

/// The first key of a page, and its number.
type Child = (Vec<u8>, u64);

/// Writes one database. Nothing is valid before [`finish`](Self::finish).
#[derive(Debug)]
pub(super) struct BoltWriter<W: Write + Seek> {
    out: BufWriter<W>,
    pages: u64,
    /// Each bucket's name and value.
    buckets: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write + Seek> BoltWriter<W> {
    /// Begins a database at the beginning of `out`, which is empty.
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(256 << 10, out);
        out.write_all(&[0; PAGE * FIRST_PAGES as usize])?;
        Ok(Self { out, pages: FIRST_PAGES, buckets: Vec::new() })
    }

    /// Writes a bucket, whose elements come in strictly ascending order of their keys. One page
    /// of them is held in memory, and the first key of each page.
    pub(super) fn bucket<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        name: &str,
        elements: impl IntoIterator<Item = (K, V)>,
    ) -> io::Result<()> {
        let mut children: Vec<Child> = Vec::new();
        let mut page = Page::new(LEAF_KIND);
        for (key, value) in elements {
            let (key, value) = (key.as_ref(), value.as_ref());
            if page.count() > 0 && !page.has_room(key.len() + value.len()) {
                let full = std::mem::replace(&mut page, Page::new(LEAF_KIND));
                children.push(self.write_page(&full)?);
            }
            page.add_leaf(0, key, value);
        }
        let empty = children.is_empty() && page.count() == 0;
        let value = if empty {
            bucket_value(0, &page.encode(0)[..PAGE_HEADER])
        } else {
            children.push(self.write_page(&page)?);
            bucket_value(self.write_branches(children)?, &[])
        };
        self.buckets.push((name.as_bytes().to_vec(), value));
        Ok(())
    }

    /// Writes the levels above a row of pages; gives the page of the root.
    fn write_branches(&mut self, mut children: Vec<Child>) -> io::Result<u64> {
        while children.len() > 1 {
            let mut parents = Vec::new();
            for family in families(children) {
                let mut page = Page::new(BRANCH_KIND);
                for (key, number) in family {
                    page.add_branch(&key, number);
                }
                parents.push(self.write_page(&page)?);
            }
            children = parents;
        }
        Ok(children.first().map_or(0, |(_, number)| *number))
    }

    fn write_page(&mut self, page: &Page) -> io::Result<Child> {
        let number = self.pages;
        let first = page.first_key().to_vec();
        let bytes = page.encode(number);
        self.out.write_all(&bytes)?;
        self.pages += (bytes.len() / PAGE) as u64;
        Ok((first, number))
    }

    /// Writes what leads to the buckets; gives back what was written to, and its length.
    pub(super) fn finish(mut self) -> io::Result<(W, u64)> {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.sort();
        let mut root = Page::new(LEAF_KIND);
        for (name, value) in &buckets {
            root.add_leaf(BUCKET_FLAG, name, value);
        }
        let (_, root) = self.write_page(&root)?;
        let pages = self.pages;
        self.out.seek(SeekFrom::Start(0))?;
        for transaction in 0..2 {
            self.out.write_all(&meta_page(transaction, root, pages))?;
        }
        self.out.write_all(&Page::new(FREE_LIST_KIND).encode(FREE_LIST_PAGE))?;
        let out = self.out.into_inner().map_err(|error| error.into_error())?;
        Ok((out, pages * PAGE as u64))
    }
}

/// Divides a row of pages among branches, each as full as it gets. None has a single child: bbolt
/// would not keep it.
fn families(children: Vec<Child>) -> Vec<Vec<Child>> {
    let mut families: Vec<Vec<Child>> = Vec::new();
    let mut room = 0;
    for child in children {
        let needs = ELEMENT + child.0.len();
        match families.last_mut() {
            Some(family) if family.len() < 2 || needs <= room => {
                room = room.saturating_sub(needs);
                family.push(child);
            }
            _ => {
                room = (PAGE - PAGE_HEADER).saturating_sub(needs);
                families.push(vec![child]);
            }
        }
    }
    if let [.., before, last] = &mut families[..]
        && last.len() < 2
        && before.len() > 2
    {
        last.splice(..0, before.pop());
    }
    families
}

/// The value of a bucket's element.
fn bucket_value(root: u64, inline: &[u8]) -> Vec<u8> {
    [&root.to_le_bytes()[..], &0u64.to_le_bytes(), inline].concat()
}

fn page_header(number: u64, kind: u16, count: u16, overflow: u32) -> [u8; PAGE_HEADER] {
    let mut header = [0; PAGE_HEADER];
    header[..8].copy_from_slice(&number.to_le_bytes());
    header[8..10].copy_from_slice(&kind.to_le_bytes());
    header[10..12].copy_from_slice(&count.to_le_bytes());
    header[12..].copy_from_slice(&overflow.to_le_bytes());
    header
}

fn meta_page(transaction: u64, root: u64, pages: u64) -> [u8; PAGE] {
    let mut meta = Vec::with_capacity(META);
    for number in [MAGIC, VERSION, PAGE as u32, 0] {
        meta.extend_from_slice(&number.to_le_bytes());
    }
    for number in [root, 0, FREE_LIST_PAGE, pages, transaction] {
        meta.extend_from_slice(&number.to_le_bytes());
    }
    let checksum = fnv1a(&meta);
    meta.extend_from_slice(&checksum.to_le_bytes());
    let mut page = [0; PAGE];
    page[..PAGE_HEADER].copy_from_slice(&page_header(transaction, META_KIND, 0, 0));
    page[PAGE_HEADER..PAGE_HEADER + META].copy_from_slice(&meta);
    page
}

/// FNV-1a, 64 bit.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A page that is being filled.
#[derive(Debug)]
struct Page {
    kind: u16,
    /// Two numbers, then the lengths of key and value, as far as the kind has them.
    elements: Vec<Element>,
    data: Vec<u8>,
}

#[derive(Debug)]
enum Element {
    Leaf { flags: u32, key: u32, value: u32 },
    Branch { key: u32, page: u64 },
}

impl Page {
    fn new(kind: u16) -> Self {
        Self { kind, elements: Vec::new(), data: Vec::new() }
    }

    fn count(&self) -> usize {
        self.elements.len()
    }

    fn len(&self) -> usize {
        PAGE_HEADER + self.elements.len() * ELEMENT + self.data.len()
    }

    /// Whether one more element with so much data fits without overflow.
    fn has_room(&self, data: usize) -> bool {
        self.len() + ELEMENT + data <= PAGE
    }

    fn add_leaf(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        self.elements.push(Element::Leaf {
            flags,
            key: key.len() as u32,
            value: value.len() as u32,
        });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn add_branch(&mut self, key: &[u8], page: u64) {
        self.elements.push(Element::Branch { key: key.len() as u32, page });
        self.data.extend_from_slice(key);
    }

    fn first_key(&self) -> &[u8] {
        match self.elements.first() {
            Some(Element::Leaf { key, .. } | Element::Branch { key, .. }) => {
                &self.data[..*key as usize]
            }
            None => &[],
        }
    }

    /// The page's bytes with those of its overflow.
    fn encode(&self, number: u64) -> Vec<u8> {
        let pages = self.len().div_ceil(PAGE);
        let mut out = Vec::with_capacity(pages * PAGE);
        let overflow = (pages - 1) as u32;
        out.extend_from_slice(&page_header(number, self.kind, self.count() as u16, overflow));
        let data = PAGE_HEADER + self.count() * ELEMENT;
        let mut offset = data;
        for element in &self.elements {
            let position = (offset - out.len()) as u32;
            match *element {
                Element::Leaf { flags, key, value } => {
                    for number in [flags, position, key, value] {
                        out.extend_from_slice(&number.to_le_bytes());
                    }
                    offset += (key + value) as usize;
                }
                Element::Branch { key, page } => {
                    out.extend_from_slice(&position.to_le_bytes());
                    out.extend_from_slice(&key.to_le_bytes());
                    out.extend_from_slice(&page.to_le_bytes());
                    offset += key as usize;
                }
            }
        }
        out.extend_from_slice(&self.data);
        out.resize(pages * PAGE, 0);
        out
    }
}
