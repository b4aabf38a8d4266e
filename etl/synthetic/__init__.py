"""Made-up interactions with planted truths, so that what an analysis finds can be held against what is there.

    population    who there is: users with segments and tastes, items with prices and a popularity tail
    activity      what they do: sessions in time, events, and a recommender's impressions with a planted lift
    files         CSV files for etl.sources.synthetic, and the truths beside them

Everything is drawn from one seed. Every id begins with `synthetic:` and every row has the source `synthetic`.
"""
