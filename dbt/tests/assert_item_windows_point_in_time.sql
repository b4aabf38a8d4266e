with

features as (

    {{ sampled_rows(ref('feat_item_windows'), ['item_id'], stated_anew=true) }}

),

events as (

    {{ events_of_items() }}

),

-- An event's weight is 1 at the midnight that ends its day and half as much every 30 days.
counted as (

    {{
        recounted_windows(['item_id'], of_entity='features.item_id = events.item_id', more="coalesce(sum(
            events.interactions * power(
                0.5,
                extract(epoch from features.event_timestamp - " ~ utc_midnight(utc_date('events.occurred_at') ~ ' + 1') ~ ")
                ::double precision / 2592000
            )
        ), 0) as decayed")
    }}

)

select features.* from features
inner join counted using (item_id, event_timestamp)
where
    {{ windows_differ('item') }}
    or abs(features.item_events_decayed - counted.decayed) > 1e-6
