use super::*;

/// Reads of stock must never be outdated or rolled back, and writes never lost.
#[tokio::test]
async fn url_cannot_weaken_consistency() {
    for query in [
        "",
        "?readPreference=secondaryPreferred",
        "?readPreference=nearest&maxStalenessSeconds=120",
        "?readPreference=secondary&readPreferenceTags=dc:ny",
        "?readConcernLevel=local",
        "?readConcernLevel=available",
        "?w=0",
        "?w=1&journal=false",
        "?w=1&wtimeoutMS=1",
    ] {
        let options = consistent_options(ClientOptions::parse(format!("mongodb://127.0.0.1/{query}")).await.unwrap());
        assert_eq!(options.read_concern, Some(ReadConcern::majority()), "{query}");
        assert_eq!(options.selection_criteria, Some(SelectionCriteria::ReadPreference(ReadPreference::Primary)), "{query}");
        let write = options.write_concern.unwrap();
        assert_eq!((write.w, write.journal), (Some(Acknowledgment::Majority), Some(true)), "{query}");
        let store = MongoStore::new(&format!("mongodb://127.0.0.1/{query}")).await.unwrap();
        assert_eq!(store.database.read_concern(), Some(&ReadConcern::majority()), "{query}");
        assert_eq!(store.database.selection_criteria(), Some(&SelectionCriteria::ReadPreference(ReadPreference::Primary)), "{query}");
        assert_eq!(store.collections.stock.read_concern(), Some(&ReadConcern::majority()), "{query}");
    }
}
