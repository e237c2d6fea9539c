//! Writes the inputs that each target begins with to `corpus/<target>/`, where cargo-fuzz looks.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, _) in orch_api::fuzzing::TARGETS {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (at, seed) in orch_api::fuzzing::seeds(target).iter().enumerate() {
            fs::write(folder.join(format!("seed-{at}")), seed)?;
        }
    }
    Ok(())
}
