//! Reads bbolt databases. The format is described beside the writer.
//!
//! Nothing in the file is trusted: what leads nowhere is an error, and never a panic.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::Bytes;

use super::bolt::{
    BRANCH_KIND, BUCKET_FLAG, ELEMENT, LEAF_KIND, MAGIC, META, PAGE_HEADER, VERSION, fnv1a,
};

/// Trees are not deeper.
const DEPTH_MAX: usize = 40;

/// What is wrong with a database.
pub(in crate::serve) type Damage = io::Error;

fn damaged(what: impl Into<String>) -> Damage {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// An open database.
#[derive(Debug)]
pub(in crate::serve) struct BoltReader {
    file: File,
    length: u64,
    page_size: usize,
    pages: u64,
    root: u64,
}

/// The root bucket's page and the number of pages, as one meta page has it.
struct Meta {
    page_size: usize,
    root: u64,
    pages: u64,
    transaction: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl Meta {
    fn read(file: &File, offset: u64) -> Option<Self> {
        let mut page = [0; PAGE_HEADER + META];
        file.read_exact_at(&mut page, offset).ok()?;
        let meta = &page[PAGE_HEADER..];
        let valid = u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64_at(meta, META - 8)? == fnv1a(&meta[..META - 8]);
        let page_size = u32_at(meta, 8)? as usize;
        (valid && page_size.is_power_of_two() && page_size >= 1024).then_some(Self {
            page_size,
            root: u64_at(meta, 16)?,
            pages: u64_at(meta, 40)?,
            transaction: u64_at(meta, 48)?,
        })
    }
}

impl BoltReader {
    /// Finds the newer one of the valid meta pages.
    pub(in crate::serve) fn open(file: File) -> Result<Self, Damage> {
        // The second one is a page further, whose size only the first one tells; it may be bad.
        let first = Meta::read(&file, 0);
        let sizes = first.iter().map(|meta| meta.page_size).chain((12..=16).map(|bits| 1 << bits));
        let second = sizes.map(|size| Meta::read(&file, size as u64)).find_map(|meta| meta);
        let newest = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        let Some(Meta { page_size, root, pages, .. }) = newest else {
            return Err(damaged("it is not a bbolt database"));
        };
        let length = file.metadata()?.len();
        Ok(Self { file, length, page_size, pages, root })
    }

    /// Visits the elements of a bucket in the order of their keys; `false` if there is no such
    /// bucket.
    pub(in crate::serve) fn each(
        &self,
        bucket: &str,
        mut visit: impl FnMut(Bytes, Bytes) -> Result<(), Damage>,
    ) -> Result<bool, Damage> {
        let mut found = None;
        self.walk(self.root, 0, &mut self.pages.clone(), &mut |flags, key, value| {
            if flags & BUCKET_FLAG != 0 && key == bucket.as_bytes() {
                found = Some(value);
            }
            Ok(())
        })?;
        let Some(value) = found else { return Ok(false) };
        let root = u64_at(&value, 0).ok_or_else(|| damaged("a bucket without a root"))?;
        let mut elements = |_flags: u32, key: Bytes, value: Bytes| visit(key, value);
        if root == 0 {
            leaf(&value.slice(16.min(value.len())..), &mut elements)?;
        } else {
            self.walk(root, 0, &mut self.pages.clone(), &mut elements)?;
        }
        Ok(true)
    }

    /// Visits the leaves below a page. `budget` is how many pages there can be.
    fn walk(
        &self,
        number: u64,
        depth: usize,
        budget: &mut u64,
        visit: &mut dyn FnMut(u32, Bytes, Bytes) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        *budget = budget
            .checked_sub(1)
            .filter(|_| depth < DEPTH_MAX)
            .ok_or_else(|| damaged("its pages lead in a circle"))?;
        let page = self.page(number)?;
        match u16_at(&page, 8) {
            Some(LEAF_KIND) => leaf(&page, visit),
            Some(BRANCH_KIND) => {
                for index in 0..usize::from(u16_at(&page, 10).unwrap_or(0)) {
                    let child = u64_at(&page, PAGE_HEADER + index * ELEMENT + 8);
                    let child = child.ok_or_else(|| damaged("a branch is cut off"))?;
                    self.walk(child, depth + 1, budget, visit)?;
                }
                Ok(())
            }
            kind => Err(damaged(format!("page {number} is of kind {kind:?}"))),
        }
    }

    /// A page with its overflow.
    fn page(&self, number: u64) -> Result<Bytes, Damage> {
        let mut header = [0; PAGE_HEADER];
        let offset = number.checked_mul(self.page_size as u64).filter(|_| number < self.pages);
        let offset = offset.ok_or_else(|| damaged(format!("there is no page {number}")))?;
        self.file.read_exact_at(&mut header, offset)?;
        let overflow = u32_at(&header, 12).unwrap_or(0) as usize;
        let size = overflow.checked_add(1).and_then(|pages| pages.checked_mul(self.page_size));
        let size = size.filter(|size| *size as u64 <= self.length.saturating_sub(offset));
        let size = size.ok_or_else(|| damaged(format!("page {number} is cut off")))?;
        if u64_at(&header, 0) != Some(number) {
            return Err(damaged(format!("page {number} has another number")));
        }
        let mut page = vec![0; size];
        self.file.read_exact_at(&mut page, offset)?;
        Ok(page.into())
    }
}

/// Visits the elements of one leaf.
fn leaf(
    page: &Bytes,
    visit: &mut dyn FnMut(u32, Bytes, Bytes) -> Result<(), Damage>,
) -> Result<(), Damage> {
    for index in 0..usize::from(u16_at(page, 10).unwrap_or(0)) {
        let at = PAGE_HEADER + index * ELEMENT;
        let number = |field| u32_at(page, at + field).map(|number| number as usize);
        let bounds = || {
            let key = at.checked_add(number(4)?)?;
            let value = key.checked_add(number(8)?)?;
            let end = value.checked_add(number(12)?)?;
            (end <= page.len()).then_some((key, value, end))
        };
        let (key, value, end) = bounds().ok_or_else(|| damaged("a leaf is cut off"))?;
        let flags = u32_at(page, at).unwrap_or(0);
        visit(flags, page.slice(key..value), page.slice(value..end))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::bolt::{BoltWriter, PAGE},
        *,
    };

    type Elements = Vec<(Vec<u8>, Vec<u8>)>;

    fn write(buckets: &[(&str, Elements)]) -> (File, u64) {
        let mut writer = BoltWriter::new(tempfile::tempfile().unwrap()).unwrap();
        for (name, elements) in buckets {
            writer.bucket(name, elements.iter().map(|(key, value)| (key, value))).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(reader: &BoltReader, bucket: &str) -> Option<Elements> {
        let mut elements = Vec::new();
        let found = reader.each(bucket, |key, value| {
            elements.push((key.to_vec(), value.to_vec()));
            Ok(())
        });
        found.unwrap().then_some(elements)
    }

    /// Keys of up to a page, and values of up to several.
    fn elements() -> impl Strategy<Value = Elements> {
        let key = prop_oneof![
            9 => prop::collection::vec(any::<u8>(), 1..20),
            1 => prop::collection::vec(any::<u8>(), 1000..3000),
        ];
        let value = prop_oneof![
            20 => prop::collection::vec(any::<u8>(), 0..100),
            1 => prop::collection::vec(any::<u8>(), 5000..20_000),
        ];
        prop::collection::btree_map(key, value, 0..600).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_was_written_is_read(b in elements(), a in elements()) {
            let (file, size) = write(&[("b", b.clone()), ("empty", Vec::new()), ("a", a.clone())]);
            assert_eq!(file.metadata().unwrap().len(), size);
            let reader = BoltReader::open(file).unwrap();
            assert_eq!(read(&reader, "a"), Some(a));
            assert_eq!(read(&reader, "b"), Some(b));
            assert_eq!(read(&reader, "empty"), Some(Vec::new()));
            assert_eq!(read(&reader, "c"), None);
        }

        /// A byte that is wrong is an error or another content, never a panic or an endless walk.
        #[test]
        fn damage_does_no_harm(at in 0usize..40_000, byte in any::<u8>()) {
            let many = (0..800u32).map(|n| (n.to_be_bytes().to_vec(), vec![7; 30])).collect();
            let (file, size) = write(&[("a", many)]);
            file.write_all_at(&[byte], at as u64 % size).unwrap();
            if let Ok(reader) = BoltReader::open(file) {
                let _ = reader.each("a", |_, _| Ok(()));
            }
        }
    }

    #[test]
    fn the_second_meta_page_stands_in_for_the_first() {
        let (file, _) = write(&[("a", vec![(b"k".to_vec(), b"v".to_vec())])]);
        file.write_all_at(&[0], 20).unwrap();
        let reader = BoltReader::open(file).unwrap();
        assert_eq!(read(&reader, "a").unwrap().len(), 1);
        reader.file.write_all_at(&[0], PAGE as u64 + 20).unwrap();
        let neither = BoltReader::open(reader.file).unwrap_err();
        assert_eq!(neither.to_string(), "it is not a bbolt database");
    }

    /// The three levels of a large bucket, and branches that are never alone.
    #[test]
    fn many_elements_make_a_tree() {
        for count in [1u64, 100, 127, 128, 15_000, 16_000, 16_129, 40_000] {
            let elements: Elements =
                (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![1; 1000])).collect();
            let (file, _) = write(&[("a", elements.clone())]);
            let reader = BoltReader::open(file).unwrap();
            assert!(read(&reader, "a").unwrap() == elements, "{count}");
        }
    }
}
