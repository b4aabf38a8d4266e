-- Joining clicks neither loses nor multiplies an impression.
with

counts as (

    select
        (
            select count(*) from {{ source('raw', 'impressions') }}
            where
                shown_at < {{ as_of() }}
                and domain in {{ domains() }}
        ) as raw_count,
        (select count(*) from {{ ref('fct_impressions') }}) as mart_count

)

select * from counts
where raw_count != mart_count
