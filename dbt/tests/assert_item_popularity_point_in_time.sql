-- depends_on: {{ ref('fct_interactions') }} {{ ref('int_items_daily') }}
-- Each feature row of a fixed sample equals what the events strictly before its instant give when counted
-- one by one; so no row covers an event at or after its event_timestamp, and none misses one before it.
with

features as (

    select * from {{ ref('feat_item_popularity') }}
    where {{ if_changed('item_id') }}
    order by hashtextextended(item_id, extract(epoch from event_timestamp)::bigint), item_id, event_timestamp
    limit {% if should_full_refresh() %}500{% else %}100{% endif %}

),

-- An incremental build recounts the days that it has counted already: one event at a time would be a scan of all.
days as (

    {% if should_full_refresh() %}
        select
            item_id,
            occurred_at,
            1 as interactions,
            rating as rating_sum,
            (rating is not null)::integer as rating_count

        from {{ ref('fct_interactions') }}
    {% else %}
        select
            item_id,
            {{ utc_midnight('active_date') }} as occurred_at,
            interactions,
            rating_sum,
            rating_count

        from {{ ref('int_items_daily') }}
    {% endif %}
    where item_id in (select item_id from features)

),

counted as (

    select
        features.item_id,
        features.event_timestamp,
        coalesce(sum(days.interactions), 0) as interactions_total,
        coalesce(
            sum(days.interactions) filter (where days.occurred_at >= features.event_timestamp - interval '90 days'), 0
        ) as interactions_90d,
        sum(days.rating_sum) / nullif(sum(days.rating_count), 0) as mean_rating

    from features
    left join days
        on
            features.item_id = days.item_id
            and days.occurred_at < features.event_timestamp
    group by features.item_id, features.event_timestamp

)

select features.* from features
inner join counted using (item_id, event_timestamp)
where
    features.event_timestamp > {{ as_of() }}
    or features.item_interactions_total != counted.interactions_total
    or features.item_interactions_90d != counted.interactions_90d
    or (features.item_mean_rating is null) != (counted.mean_rating is null)
    or abs(features.item_mean_rating - counted.mean_rating) > 1e-9
