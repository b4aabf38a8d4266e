with

features as (

    {{ sampled_rows(ref('feat_item_prices'), ['item_id'], size=300) }}

),

purchases as (

    select * from {{ ref('int_purchases_priced') }}
    where
        revenue is not null
        and quantity > 0
        and item_id in (select item_id from features)

),

counted as (

    select
        features.item_id,
        features.event_timestamp,
        sum(purchases.quantity) as sold_total,
        sum(purchases.revenue) / sum(purchases.quantity) as mean_price,
        sum(purchases.revenue) filter (where purchases.occurred_at >= features.event_timestamp - interval '1 day')
        / sum(purchases.quantity) filter (
            where purchases.occurred_at >= features.event_timestamp - interval '1 day'
        ) as price,
        sum(purchases.revenue) filter (where purchases.occurred_at >= features.event_timestamp - interval '90 days')
        / sum(purchases.quantity) filter (
            where purchases.occurred_at >= features.event_timestamp - interval '90 days'
        ) as mean_price_90d

    from features
    left join purchases
        on
            features.item_id = purchases.item_id
            and purchases.occurred_at < features.event_timestamp
    group by features.item_id, features.event_timestamp

)

select features.* from features
inner join counted using (item_id, event_timestamp)
where
    features.event_timestamp > {{ as_of() }}
    or counted.price is null
    or abs(features.item_price - counted.price) > 1e-6
    or abs(features.item_mean_price_90d - counted.mean_price_90d) > 1e-6
    or abs(features.item_price_to_mean - counted.price / nullif(counted.mean_price, 0)) > 1e-6
    or abs(features.item_sold_total - counted.sold_total) > 1e-6
